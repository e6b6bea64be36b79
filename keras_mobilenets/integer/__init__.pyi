from .model import integer_model as integer_model
