"""What callers ask about the server and its models, in the words of each protocol. Nothing here computes."""
