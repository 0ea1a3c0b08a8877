//! Empty. Cargo compiles a crate once for each set of features that a package asks for; the command,
//! the libraries and the Python module ask for the same by depending on this crate, so that what one
//! has compiled the next finds.
