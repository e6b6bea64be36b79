"""Edits of the converter's file, each on the flatbuffer's mutable object tree."""
