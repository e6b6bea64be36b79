"""`python -m keras_mobilenets.cli` does what `keras-mobilenets` does."""

from keras_mobilenets.cli import main

main()
