//! Random bytes that nobody can guess.

/// Fills `bytes` from the operating system, or with what a simulation has drawn.
pub fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    #[cfg(test)]
    if crate::simulation::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes)
}
