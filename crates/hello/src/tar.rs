//! `tar`: packs and unpacks plain files, folders and links, as `kubectl cp` asks for: `tar cf - PATH...` and
//! `tar -xmf - -C DIR`. Names that would leave the folder are refused.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

const BLOCK: usize = 512;
const NAME_MAX: usize = 100;
const PREFIX_MAX: usize = 155;
/// Longer names come in an entry of their own before the one they name (GNU's way).
const LONG_NAME: u8 = b'L';
const LONG_NAME_MAX: u64 = 64 << 10;

struct Options {
    extract: bool,
    file: String,
    folder: PathBuf,
    paths: Vec<String>,
}

pub fn main(arguments: &[String]) -> i32 {
    match parse(arguments).and_then(|options| run(&options).map_err(|e| e.to_string())) {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("tar: {why}");
            2
        }
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let (mut create, mut extract, mut file, mut folder, mut paths) = (false, false, None, PathBuf::from("."), Vec::new());
    let mut rest = arguments.iter();
    let mut first = true;
    while let Some(argument) = rest.next() {
        let letters = match argument.strip_prefix('-') {
            Some(long) if long.starts_with('-') => continue,
            Some(letters) if !letters.is_empty() => letters,
            None if first => argument,
            _ => {
                paths.push(argument.clone());
                continue;
            }
        };
        first = false;
        for letter in letters.chars() {
            match letter {
                'c' => create = true,
                'x' => extract = true,
                'f' => file = Some(rest.next().ok_or("f wants a file")?.clone()),
                'C' => folder = rest.next().ok_or("C wants a folder")?.into(),
                'm' | 'v' | 'p' | 'o' | 'h' => {}
                other => return Err(format!("unknown option {other:?}")),
            }
        }
    }
    if create == extract {
        return Err("one of c and x is wanted".to_owned());
    }
    if create && paths.is_empty() {
        return Err("nothing to pack".to_owned());
    }
    Ok(Options { extract, file: file.unwrap_or_else(|| "-".to_owned()), folder, paths })
}

fn run(options: &Options) -> io::Result<()> {
    if options.extract {
        let mut from: Box<dyn Read> = if options.file == "-" { Box::new(io::stdin().lock()) } else { Box::new(File::open(&options.file)?) };
        return unpack(&mut from, &options.folder);
    }
    let to: Box<dyn Write> = if options.file == "-" { Box::new(io::stdout().lock()) } else { Box::new(File::create(&options.file)?) };
    let mut to = io::BufWriter::new(to);
    for path in &options.paths {
        pack(&mut to, &options.folder.join(path), Path::new(path.trim_start_matches('/')))?;
    }
    to.write_all(&[0; 2 * BLOCK])?;
    to.flush()
}

/// Packs a file, or a folder with all that is in it, under a name.
fn pack(to: &mut dyn Write, path: &Path, name: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    let kind = meta.file_type();
    if kind.is_dir() {
        header(to, name, b'5', &meta, 0, OsStr::new(""))?;
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            pack(to, &entry.path(), &name.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if kind.is_symlink() {
        return header(to, name, b'2', &meta, 0, fs::read_link(path)?.as_os_str());
    }
    if !kind.is_file() {
        eprintln!("tar: {}: left out, not a plain file", path.display());
        return Ok(());
    }
    header(to, name, b'0', &meta, meta.len(), OsStr::new(""))?;
    // A file that grows meanwhile is cut, one that shrinks is filled up: the header has been said.
    let mut left = meta.len();
    let mut from = File::open(path)?;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let got = from.read(&mut buffer[..want])?;
        if got == 0 {
            buffer[..want].fill(0);
        }
        let got = if got == 0 { want } else { got };
        to.write_all(&buffer[..got])?;
        left -= got as u64;
    }
    pad(to, meta.len())
}

fn pad(to: &mut dyn Write, length: u64) -> io::Result<()> {
    let over = usize::try_from(length % BLOCK as u64).unwrap_or(0);
    if over == 0 { Ok(()) } else { to.write_all(&vec![0; BLOCK - over]) }
}

fn header(to: &mut dyn Write, name: &Path, kind: u8, meta: &fs::Metadata, size: u64, link: &OsStr) -> io::Result<()> {
    let mut name = name.as_os_str().as_bytes().to_vec();
    if kind == b'5' {
        name.push(b'/');
    }
    if name.len() > NAME_MAX {
        let mut block = [0; BLOCK];
        fill(&mut block, b"././@LongLink", LONG_NAME, 0o644, name.len() as u64 + 1, 0, b"");
        to.write_all(&block)?;
        to.write_all(&name)?;
        to.write_all(&[0])?;
        pad(to, name.len() as u64 + 1)?;
    }
    let mut block = [0; BLOCK];
    fill(&mut block, &name, kind, meta.mode() & 0o7777, size, u64::try_from(meta.mtime()).unwrap_or(0), link.as_bytes());
    to.write_all(&block)
}

fn fill(block: &mut [u8; BLOCK], name: &[u8], kind: u8, mode: u32, size: u64, modified: u64, link: &[u8]) {
    let mut put = |at: usize, room: usize, bytes: &[u8]| {
        let length = bytes.len().min(room);
        block[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, NAME_MAX, name);
    put(100, 8, format!("{mode:07o}").as_bytes());
    put(108, 8, b"0000000");
    put(116, 8, b"0000000");
    put(124, 12, format!("{size:011o}").as_bytes());
    put(136, 12, format!("{modified:011o}").as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link);
    put(257, 8, b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Unpacks an archive below a folder.
fn unpack(from: &mut dyn Read, folder: &Path) -> io::Result<()> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut long: Option<Vec<u8>> = None;
    let mut block = [0; BLOCK];
    loop {
        if let Err(e) = from.read_exact(&mut block) {
            // An archive may end without its two empty blocks.
            return if e.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(e) };
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(());
        }
        let size = octal(&block[124..136]).ok_or_else(|| bad("a header has no size"))?;
        let mode = u32::try_from(octal(&block[100..108]).unwrap_or(0o644)).unwrap_or(0o644) & 0o777;
        if block[156] == LONG_NAME {
            if size > LONG_NAME_MAX {
                return Err(bad("a name is too long"));
            }
            let mut name = Vec::new();
            body(from, size, &mut name)?;
            name.retain(|b| *b != 0);
            long = Some(name);
            continue;
        }
        let name = long.take().unwrap_or_else(|| short_name(&block));
        let path = inside(folder, &name).ok_or_else(|| bad("a name leaves the folder"))?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match block[156] {
            b'5' => fs::create_dir_all(&path)?,
            b'0' | 0 => {
                let mut file = File::create(&path)?;
                body(from, size, &mut file)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            }
            _ => body(from, size, &mut io::sink())?,
        }
    }
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

fn short_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let (name, prefix) = (text(&block[..NAME_MAX]), text(&block[345..345 + PREFIX_MAX]));
    let ustar = &block[257..262] == b"ustar" && block[262] == 0;
    if ustar && !prefix.is_empty() { [prefix, b"/", name].concat() } else { name.to_vec() }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text(field)).ok()?.trim();
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// The path of a name below the folder; `None` for one that would leave it, also through a link that is there.
fn inside(folder: &Path, name: &[u8]) -> Option<PathBuf> {
    let mut path = folder.to_owned();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
        if path != *folder && fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_symlink()) {
            return None;
        }
    }
    Some(path)
}

fn body(from: &mut dyn Read, size: u64, to: &mut dyn Write) -> io::Result<()> {
    let copied = io::copy(&mut from.take(size), to)?;
    if copied < size {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within a file"));
    }
    let over = size % BLOCK as u64;
    let padding = if over == 0 { 0 } else { BLOCK as u64 - over };
    io::copy(&mut from.take(padding), &mut io::sink()).map(drop)
}
