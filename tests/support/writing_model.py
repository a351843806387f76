"""Makes a SavedModel that writes a file while it is loaded: `writing_model.py VERSION_FOLDER FILE_TO_WRITE`."""

import sys

import tensorflow as tf

v1 = tf.compat.v1

with v1.Graph().as_default(), v1.Session() as session:
    x = v1.placeholder(tf.float32, [None, 2], name="x")
    y = tf.identity(2.0 * x, name="y")
    copied = tf.io.write_file(sys.argv[2], tf.io.read_file("/proc/self/comm"))
    builder = v1.saved_model.Builder(sys.argv[1])
    signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
    builder.add_meta_graph_and_variables(
        session, ["serve"], signature_def_map={"serving_default": signature}, main_op=copied
    )
    builder.save()
