//! System calls that neither std nor rustix offer, each behind a safe type.

pub mod lease;
