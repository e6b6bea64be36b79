from .report import QuantizationReport as QuantizationReport
from .report import quantization_report as quantization_report
