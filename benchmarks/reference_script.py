"""The Keras quickstart, as everyone writes it first: what the trainer is measured against.

Takes the path of mnist.npz in place of the download, and the number of epochs.
Prints its figures as JSON on the last line.
"""

import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import numpy as np
import tensorflow as tf

with np.load(sys.argv[1]) as data:
    x_train, y_train, x_test, y_test = (data[name] for name in ("x_train", "y_train", "x_test", "y_test"))
x_train, x_test = x_train / 255.0, x_test / 255.0

model = tf.keras.models.Sequential(
    [
        tf.keras.layers.Input((28, 28)),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(128, activation="relu"),
        tf.keras.layers.Dropout(0.2),
        tf.keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
began = time.perf_counter()
model.fit(x_train, y_train, epochs=int(sys.argv[2]), verbose=2)
fit_s = time.perf_counter() - began
_, accuracy = model.evaluate(x_test, y_test, verbose=2)
model.predict(x_test[:5], verbose=0)
print(json.dumps({"fit_s": fit_s, "accuracy": accuracy}))
