//! Distribution client: authenticate, resolve, fetch.
