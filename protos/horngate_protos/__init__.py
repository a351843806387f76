"""The contract between Horngate's parts: wire messages, datatypes, and the version that all parts share.

The message classes live in a descriptor pool of their own, so that a process can import them beside the generated
code of tritonclient, kserve or tensorflow-serving-api, in any order: those register the same message names in
protobuf's default pool and clash there with one another.
"""

__version__ = "0.1.0"
