//! The manual of keys, generated from the table.
