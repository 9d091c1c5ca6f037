//! What a process holds of memory when its start is over.

use std::io;

/// Gives back the pages of the program's own code: what is needed again is read from the page cache when it is, and what only
/// the start needed stays away. Answers how many bytes of code there are.
pub fn release_code() -> io::Result<usize> {
    let here = release_code as *const () as usize;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let Some((begin, end)) = maps.lines().find_map(|line| code(line, here)) else { return Ok(0) };
    let address = std::ptr::NonNull::new(begin as *mut std::ffi::c_void).ok_or_else(|| io::Error::other("code at address 0"))?;
    // SAFETY: the range is one mapping of a file, private, executable and not writable, as the kernel has just said: its pages
    // are the file's, none was changed, and whatever is touched again is mapped again from the file.
    unsafe { nix::sys::mman::madvise(address, end - begin, nix::sys::mman::MmapAdvise::MADV_DONTNEED) }?;
    Ok(end - begin)
}

/// The bounds of a mapping that holds an address, if it is code of a file.
fn code(line: &str, address: usize) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (begin, end) = words.next()?.split_once('-')?;
    let (begin, end) = (usize::from_str_radix(begin, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let (rights, file) = (words.next()?, words.nth(3)?);
    ((begin..end).contains(&address) && rights == "r-xp" && file.starts_with('/')).then_some((begin, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_goes_and_comes_back() {
        assert!(release_code().unwrap() > 4096);
        assert!(release_code().unwrap() > 4096, "it still runs");
    }

    #[test]
    fn only_unchanged_code_of_a_file_is_taken() {
        let line = |rights: &str, file: &str| format!("00401000-00402000 {rights} 00001000 fe:00 1234 {file}");
        assert_eq!(code(&line("r-xp", "/bin/x"), 0x401800), Some((0x40_1000, 0x40_2000)));
        for (line, address) in [
            (line("r-xp", "/bin/x"), 0x402000),
            (line("rwxp", "/bin/x"), 0x401800),
            (line("r--p", "/bin/x"), 0x401800),
            (line("r-xp", "[vdso]"), 0x401800),
            (line("r-xp", ""), 0x401800),
        ] {
            assert_eq!(code(&line, address), None, "{line}");
        }
    }
}
