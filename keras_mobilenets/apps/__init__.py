"""Programs around a `.tflite` file, ready to run: `keras-mobilenets app` writes them."""
