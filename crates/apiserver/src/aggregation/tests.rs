//! A back end behind an APIService.
