from . import analysis as analysis
from . import applications as applications
from . import data as data
from . import export as export
from . import layers as layers
from . import quantization as quantization
from . import training as training
from .applications import MobileNet as MobileNet
from .applications import MobileNetV2 as MobileNetV2
from .applications import MobileNetV3Large as MobileNetV3Large
from .applications import MobileNetV3Small as MobileNetV3Small
from .applications import endpoints as endpoints
from .export import export_saved_model as export_saved_model
from .export import export_tflite as export_tflite
from .export import quantization_report as quantization_report
from .layers import BatchNormalization as BatchNormalization
from .layers import DepthwiseSeparableConv as DepthwiseSeparableConv
from .layers import HardSigmoid as HardSigmoid
from .layers import HardSwish as HardSwish
from .layers import InvertedResidual as InvertedResidual
from .layers import SqueezeExcite as SqueezeExcite
from .layers import inline as inline
from .layers import make_divisible as make_divisible
from .quantization import calibrate as calibrate
from .quantization import quantize_model as quantize_model
from .quantization import strip_quantization as strip_quantization

__version__: str
