//! What went wrong, and the text of it that each thread keeps for its caller.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

use crate::daq_status;

/// Why a call failed.
pub struct Failure {
    pub status: daq_status,
    pub why: String,
}

impl Failure {
    /// The caller gave something wrong.
    pub fn argument(why: impl Into<String>) -> Self {
        Failure { status: daq_status::Argument, why: why.into() }
    }

    /// The model cannot be used.
    pub fn model(why: impl Into<String>) -> Self {
        Failure { status: daq_status::Model, why: why.into() }
    }
}

impl From<daq::Error> for Failure {
    fn from(error: daq::Error) -> Self {
        match error {
            daq::Error::Call(why) => Failure::argument(why),
            other => Failure::model(other.to_string()),
        }
    }
}

thread_local!(static LAST: RefCell<CString> = RefCell::default());

/// Keeps a text for this thread; zero bytes in it, which C cannot show, become spaces.
pub fn set_last_error(why: String) {
    let text = CString::new(why.replace('\0', " ")).unwrap_or_default();
    // A thread that is ending has no caller left to read it.
    let _ = LAST.try_with(|last| last.replace(text));
}

/// This thread's text.
pub fn last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
