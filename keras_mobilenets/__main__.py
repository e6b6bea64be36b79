"""`python -m keras_mobilenets` does what `keras-mobilenets` does."""

from keras_mobilenets.cli import main

main()
