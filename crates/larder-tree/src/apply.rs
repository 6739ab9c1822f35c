//! Unpacks layers and archives into directories.
