//! What a process holds of memory when its start is over.

use std::io;

/// Gives back the pages of the program's file: code and what is never written (texts, tables). What is needed again is read from
/// the page cache when it is, and what only the start needed stays away. Answers how many bytes that may be.
pub fn release_file() -> io::Result<usize> {
    let here = release_file as *const () as usize;
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let mappings: Vec<Mapping<'_>> = mappings(&smaps).collect();
    let Some(own) = mappings.iter().find(|m| m.holds(here)) else { return Ok(0) };
    let mut bytes = 0;
    for mapping in mappings.iter().filter(|m| m.file == own.file && m.is_as_in_its_file()) {
        let address =
            std::ptr::NonNull::new(mapping.begin as *mut std::ffi::c_void).ok_or_else(|| io::Error::other("code at address 0"))?;
        let length = mapping.end - mapping.begin;
        // SAFETY: the range is one mapping of the program's own file, private, not writable, and the kernel has just said that none
        // of its pages is a copy: all are the file's, and whatever is touched again is mapped again from the file.
        unsafe { nix::sys::mman::madvise(address, length, nix::sys::mman::MmapAdvise::MADV_DONTNEED) }?;
        bytes += length;
    }
    Ok(bytes)
}

/// One mapping of `/proc/PID/smaps`.
struct Mapping<'a> {
    begin: usize,
    end: usize,
    rights: &'a str,
    file: &'a str,
    /// KiB of pages that are no file's (any more): what relocation changed is among them.
    own_kib: Option<usize>,
}

impl Mapping<'_> {
    fn holds(&self, address: usize) -> bool {
        (self.begin..self.end).contains(&address) && self.file.starts_with('/')
    }

    fn is_as_in_its_file(&self) -> bool {
        matches!(self.rights, "r-xp" | "r--p") && self.own_kib == Some(0)
    }
}

fn mappings(smaps: &str) -> impl Iterator<Item = Mapping<'_>> {
    let mut lines = smaps.lines().peekable();
    std::iter::from_fn(move || {
        let mut mapping = lines.by_ref().find_map(head)?;
        while let Some(line) = lines.next_if(|line| head(line).is_none()) {
            // Copies may have been moved to a swap device.
            if let Some((what @ ("Anonymous" | "Swap"), rest)) = line.split_once(':') {
                let kib: Option<usize> = rest.trim().trim_end_matches(" kB").parse().ok();
                let known = if what == "Swap" { mapping.own_kib } else { Some(0) };
                mapping.own_kib = known.zip(kib).map(|(known, kib)| known + kib);
            }
        }
        Some(mapping)
    })
}

/// The line that a mapping begins with.
fn head(line: &str) -> Option<Mapping<'_>> {
    let mut words = line.split_whitespace();
    let (begin, end) = words.next()?.split_once('-')?;
    let (begin, end) = (usize::from_str_radix(begin, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some(Mapping { begin, end, rights: words.next()?, file: words.nth(3).unwrap_or_default(), own_kib: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside the code: relocated when the program was loaded, or a table as it is in the file.
    static RELOCATED: [&str; 3] = ["a", "b", "c"];

    #[test]
    fn code_goes_and_comes_back() {
        assert!(release_file().unwrap() > 4096);
        assert!(release_file().unwrap() > 4096, "it still runs");
        assert_eq!(std::hint::black_box(&RELOCATED).concat(), "abc");
    }

    #[test]
    fn only_what_is_as_in_the_file_is_taken() {
        let text = |rights: &str, file: &str, own: &str| {
            format!(
                "00401000-00402000 {rights} 00001000 fe:00 1234 {file}\nSize: 4 kB\nAnonymous: {own}\nVmFlags: rd ex\n00402000-00403000 rw-p 0 00:00 0\n"
            )
        };
        let first = |text: &str| {
            let all: Vec<(usize, usize, bool, bool)> =
                mappings(text).map(|m| (m.begin, m.end, m.is_as_in_its_file(), m.holds(0x40_1800))).collect();
            assert_eq!(all.len(), 2);
            all[0]
        };
        for (rights, file, own, taken, holds) in [
            ("r-xp", "/bin/x", "0 kB\nSwap: 0 kB", true, true),
            ("r--p", "/bin/x", "0 kB\nSwap: 0 kB", true, true),
            ("r--p", "/bin/x", "8 kB\nSwap: 0 kB", false, true),
            ("rwxp", "/bin/x", "0 kB\nSwap: 0 kB", false, true),
            ("r--p", "/bin/x", "0 kB\nSwap: 4 kB", false, true),
            ("r-xs", "/bin/x", "0 kB\nSwap: 0 kB", false, true),
            ("r-xp", "/bin/x", "?\nSwap: 0 kB", false, true),
            ("r-xp", "[vdso]", "0 kB\nSwap: 0 kB", true, false),
            ("r-xp", "", "0 kB\nSwap: 0 kB", true, false),
        ] {
            assert_eq!(first(&text(rights, file, own)), (0x40_1000, 0x40_2000, taken, holds), "{rights} {file} {own}");
        }
    }
}
