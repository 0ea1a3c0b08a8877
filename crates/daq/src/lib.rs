//! daq
