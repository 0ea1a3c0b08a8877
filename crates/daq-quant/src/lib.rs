//! daq-quant
