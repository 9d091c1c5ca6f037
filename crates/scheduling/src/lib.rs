//! Where a pod goes: filter, score, preempt. Pure.
