from .from_tflite import from_tflite as from_tflite
from .tfmot.configs import tfmot_annotate as tfmot_annotate
from .tfmot.twin import from_tf_keras as from_tf_keras
from .tfmot.twin import to_tf_keras as to_tf_keras
