//! What an ELF shared library says about itself, read without loading it.
//!
//! Steps: tell what kind of file it is, compare class, byte order and machine with ours, check that every segment and
//! section lies within the file, read the dynamic section, the exported symbols and the required versions. All of it
//! treats the file as garbage until proven otherwise: nothing here panics or allocates more than the file's size at once.

use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::{NativeEndian, ReadCache, ReadCacheOps, ReadRef, SectionIndex};
use std::fs::File;
use std::path::Path;

/// A shared library that this machine could load, as far as its file tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// Names of the functions it exports itself, sorted.
    pub functions: Vec<String>,
    /// The value of the exported object `host_abi_version`: `major << 16 | minor`.
    pub abi: Option<u32>,
    /// `st_size` in bytes of the exported object `host_module`, if there is one.
    pub module_info_bytes: Option<u64>,
    /// DT_NEEDED, in order.
    pub needed: Vec<String>,
    /// DT_RPATH, split at colons. The loader ignores it where there is a DT_RUNPATH.
    pub rpath: Vec<String>,
    /// DT_RUNPATH, split at colons.
    pub runpath: Option<Vec<String>>,
    /// Whether it brings a Go runtime.
    pub go: bool,
    /// Names of exported STB_GNU_UNIQUE symbols, of which a process has one instance for ever.
    pub unique: Vec<String>,
    /// DF_STATIC_TLS: its thread-locals take from a small store that is filled when the process starts.
    pub static_tls: bool,
}

/// Reads the library at `path`.
///
/// # Errors
/// What is wrong with the file, in words that follow its name.
pub fn read(path: &Path) -> Result<Elf, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    parse(file)
}

/// Reads a library from any seekable stream.
///
/// # Errors
/// As [`read`].
pub fn parse(stream: impl ReadCacheOps) -> Result<Elf, String> {
    let cache = ReadCache::new(stream);
    let data = &cache;
    kind(data)?;
    let header = Header::parse(data).map_err(damaged)?;
    let programs = header.program_headers(ENDIAN, data).map_err(damaged)?;
    let sections = within_file(data, header, programs)?;

    let Some((dynamic, link)) = sections.dynamic(ENDIAN, data).map_err(damaged)? else {
        return Err("has no dynamic section: link it with `-shared -fPIC`".into());
    };
    let names = Strings::section(data, &sections, link)?;
    let mut elf = Elf::default();
    for entry in dynamic.iter().take_while(|entry| entry.tag(ENDIAN) != elf::DT_NULL) {
        let value = entry.val(ENDIAN);
        match entry.tag(ENDIAN) {
            elf::DT_NEEDED => elf.needed.push(names.text(value)?),
            elf::DT_RPATH => elf.rpath = search_path(&names.text(value)?),
            elf::DT_RUNPATH => elf.runpath = Some(search_path(&names.text(value)?)),
            elf::DT_FLAGS => elf.static_tls = value & elf::DF_STATIC_TLS.0 != 0,
            elf::DT_FLAGS_1 if value & elf::DF_1_PIE.0 != 0 => return Err(PROGRAM.into()),
            _ => {}
        }
    }
    elf.go = sections.iter().any(|section| {
        sections.section_name(ENDIAN, section).is_ok_and(|name| matches!(name, b".go.buildinfo" | b".note.go.buildid"))
    });
    read_symbols(data, programs, &sections, &mut elf)?;
    required_glibc(data, &sections)?;
    Ok(elf)
}

/// The header type of our own class; a file of the other class is refused before this is used.
type Header = elf::FileHeader64<NativeEndian>;
type Program = <Header as FileHeader>::ProgramHeader;
type Sections<'data, R> = SectionTable<'data, Header, &'data ReadCache<R>>;
const ENDIAN: NativeEndian = NativeEndian;

const PROGRAM: &str = "is a program, not a library: link it with `-shared`";

/// Longest text of a name that is read; the loader has no limit, people do.
const NAME_BYTES_MAX: usize = 4096;

/// Refuses everything that is not a shared library for this machine.
fn kind(data: &ReadCache<impl ReadCacheOps>) -> Result<(), String> {
    let len = data.len().map_err(|()| "cannot be read")?;
    let start = data.read_bytes_at(0, len.min(64)).map_err(|()| "cannot be read")?;
    if start.is_empty() {
        return Err("is empty: it is not written yet, or the linker failed".into());
    }
    if !start.starts_with(&elf::ELFMAG) {
        return Err(not_elf(start));
    }
    // e_ident, e_type and e_machine stand at the same places in both classes (System V ABI, "ELF Header").
    let [.., class, byte_order] = start.get(..6).ok_or_else(|| truncated("the ELF header", 64, len))? else {
        return Err(truncated("the ELF header", 64, len));
    };
    let word = |at: usize| {
        let bytes = start.get(at..at + 2).ok_or_else(|| truncated("the ELF header", 64, len))?;
        let pair = [bytes[0], bytes[1]];
        Ok::<u16, String>(if *byte_order == 2 { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) })
    };
    let theirs = Architecture { machine: word(18)?, class: *class, byte_order: *byte_order };
    if theirs != OURS {
        return Err(format!("is built for {theirs}, this machine is {OURS}: build it for this machine"));
    }
    match elf::FileType(word(16)?) {
        elf::ET_DYN => Ok(()),
        elf::ET_REL => Err("is an object file, not a library: link it with `cc -shared`".into()),
        elf::ET_EXEC => Err(PROGRAM.into()),
        elf::ET_CORE => Err("is a core dump, not a library".into()),
        other => Err(format!("has ELF type {}, which is not a shared library", other.0)),
    }
}

fn not_elf(start: &[u8]) -> String {
    if start.starts_with(b"!<arch>") || start.starts_with(b"!<thin>") {
        return "is a static archive: link it into a shared library with `cc -shared`".into();
    }
    if start.iter().all(|byte| *byte == 0) {
        return "begins with zeros: it is not written yet, or its disk was full".into();
    }
    let text: String = start
        .iter()
        .take_while(|byte| byte.is_ascii_graphic() || **byte == b' ')
        .map(|byte| char::from(*byte))
        .collect();
    let linker_script =
        ["/* GNU ld script", "INPUT", "GROUP", "OUTPUT_FORMAT"].iter().any(|word| text.starts_with(word));
    if linker_script {
        return "is a linker script, which only a linker reads: put the library that it names here".into();
    }
    if text.len() >= 4 {
        return format!("is not an ELF shared library; it begins with {text:?}");
    }
    "is not an ELF shared library".into()
}

/// Checks that every byte that the file's tables promise is there. A truncated library is SIGBUS in `dlopen`, or, worse,
/// it loads and is SIGBUS at some later call.
fn within_file<'data, R: ReadCacheOps>(
    data: &'data ReadCache<R>,
    header: &Header,
    programs: &[Program],
) -> Result<Sections<'data, R>, String> {
    let len = data.len().map_err(|()| "cannot be read")?;
    let mut dynamic = false;
    for program in programs {
        let (offset, size) = program.file_range(ENDIAN);
        let end = offset.saturating_add(size);
        if size > 0 && end > len {
            return Err(truncated("a segment", end, len));
        }
        dynamic |= program.p_type(ENDIAN) == elf::PT_DYNAMIC;
    }
    if !dynamic {
        return Err("has no dynamic segment: link it with `-shared -fPIC`".into());
    }
    let table = header.e_shoff(ENDIAN);
    let entries = u64::from(header.e_shnum(ENDIAN)) * u64::from(header.e_shentsize(ENDIAN));
    if table == 0 {
        return Err("has no section headers, so it cannot be checked: strip it with `strip`, which keeps them".into());
    }
    if table.saturating_add(entries) > len {
        return Err(truncated("its section table", table.saturating_add(entries), len));
    }
    let sections = header.sections(ENDIAN, data).map_err(damaged)?;
    for section in sections.iter() {
        let Some((offset, size)) = section.file_range(ENDIAN) else { continue };
        let end = offset.saturating_add(size);
        if end > len {
            let name = sections.section_name(ENDIAN, section).unwrap_or(b"a section");
            return Err(truncated(&String::from_utf8_lossy(name), end, len));
        }
    }
    Ok(sections)
}

fn read_symbols<R: ReadCacheOps>(
    data: &ReadCache<R>,
    programs: &[Program],
    sections: &Sections<'_, R>,
    elf: &mut Elf,
) -> Result<(), String> {
    let table = sections.symbols(ENDIAN, data, elf::SHT_DYNSYM).map_err(damaged)?;
    if table.is_empty() {
        return Err("has no dynamic symbol table".into());
    }
    let names = Strings::section(data, sections, table.string_section())?;
    for symbol in table.iter() {
        if symbol.is_undefined(ENDIAN) || symbol.is_local() {
            continue;
        }
        let visible = matches!(symbol.st_visibility(), elf::STV_DEFAULT | elf::STV_PROTECTED);
        if !visible {
            continue;
        }
        let name = names.text(symbol.st_name(ENDIAN).into())?;
        if symbol.st_bind() == elf::STB_GNU_UNIQUE {
            elf.unique.push(name.clone());
        }
        match symbol.st_type() {
            elf::STT_OBJECT if name == "host_abi_version" => {
                elf.abi = Some(word_at(data, programs, symbol.st_value(ENDIAN))?);
            }
            elf::STT_OBJECT if name == "host_module" => elf.module_info_bytes = Some(symbol.st_size(ENDIAN)),
            // Assemblers mark a function STT_NOTYPE unless they are told; an indirect function is called like any.
            elf::STT_FUNC | elf::STT_GNU_IFUNC => elf.functions.push(name),
            elf::STT_NOTYPE if in_code(sections, symbol.st_shndx(ENDIAN).0) => elf.functions.push(name),
            _ => {}
        }
    }
    elf.functions.sort_unstable();
    elf.functions.dedup();
    Ok(())
}

fn in_code<R: ReadCacheOps>(sections: &Sections<'_, R>, index: u16) -> bool {
    let Ok(section) = sections.section(SectionIndex(index.into())) else { return false };
    let flags: u64 = section.sh_flags(ENDIAN).0;
    flags & elf::SHF_EXECINSTR.0 != 0
}

/// The `uint32_t` that the file holds for a virtual address.
fn word_at(data: &ReadCache<impl ReadCacheOps>, programs: &[Program], address: u64) -> Result<u32, String> {
    for program in programs.iter().filter(|program| program.p_type(ENDIAN) == elf::PT_LOAD) {
        let start = program.p_vaddr(ENDIAN);
        let (offset, size) = program.file_range(ENDIAN);
        let Some(within) = address.checked_sub(start) else { continue };
        if within.saturating_add(4) > size {
            continue;
        }
        let bytes = data.read_bytes_at(offset.saturating_add(within), 4).map_err(|()| "cannot be read")?;
        return bytes.try_into().map(u32::from_ne_bytes).map_err(|_| "cannot be read".into());
    }
    Err("exports a host_abi_version without a value: define it as host.h does".into())
}

/// Refuses a library that needs a newer glibc than ours. The loader would too, but it names only one of the two.
fn required_glibc<R: ReadCacheOps>(data: &ReadCache<R>, sections: &Sections<'_, R>) -> Result<(), String> {
    let Some(ours) = glibc() else { return Ok(()) };
    let Some((mut files, link)) = sections.gnu_verneed(ENDIAN, data).map_err(damaged)? else { return Ok(()) };
    let names = Strings::section(data, sections, link)?;
    let mut newest = (0, 0);
    while let Some((_, mut versions)) = files.next().map_err(damaged)? {
        while let Some(version) = versions.next().map_err(damaged)? {
            let name = names.text(version.vna_name.get(ENDIAN).into())?;
            newest = newest.max(name.strip_prefix("GLIBC_").and_then(version_number).unwrap_or_default());
        }
    }
    if newest > ours {
        return Err(format!(
            "needs glibc {}.{}, this machine has {}.{}: build it here, or on a system that is as old",
            newest.0, newest.1, ours.0, ours.1
        ));
    }
    Ok(())
}

/// The version of the C library that this process runs with.
#[cfg(target_env = "gnu")]
fn glibc() -> Option<(u32, u32)> {
    // SAFETY: no preconditions; returns a static string.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: the string is NUL-terminated and lives as long as the process.
    let version = unsafe { std::ffi::CStr::from_ptr(version) };
    version_number(version.to_str().ok()?)
}

#[cfg(not(target_env = "gnu"))]
fn glibc() -> Option<(u32, u32)> {
    None
}

fn version_number(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A string table that was read whole: one read instead of one for each name.
struct Strings<'data>(&'data [u8]);

impl<'data> Strings<'data> {
    fn section<R: ReadCacheOps>(
        data: &'data ReadCache<R>,
        sections: &Sections<'data, R>,
        index: SectionIndex,
    ) -> Result<Strings<'data>, String> {
        let section = sections.section(index).map_err(damaged)?;
        Ok(Strings(section.data(ENDIAN, data).map_err(damaged)?))
    }

    fn text(&self, offset: u64) -> Result<String, String> {
        let bytes = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        let bytes = bytes.ok_or("is damaged: a name lies outside of its string table")?;
        let bytes = &bytes[..bytes.len().min(NAME_BYTES_MAX)];
        let end = memchr::memchr(0, bytes).ok_or("is damaged: a name has no end")?;
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

fn search_path(text: &str) -> Vec<String> {
    text.split(':').filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

fn truncated(what: &str, end: u64, len: u64) -> String {
    format!("is truncated: {what} ends at byte {end}, the file at {len}; build it again")
}

fn damaged(error: object::Error) -> String {
    format!("is damaged ({error}); build it again")
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Architecture {
    machine: u16,
    class: u8,
    byte_order: u8,
}

const OURS: Architecture = Architecture {
    machine: if cfg!(target_arch = "x86_64") {
        elf::EM_X86_64.0
    } else if cfg!(target_arch = "aarch64") {
        elf::EM_AARCH64.0
    } else if cfg!(target_arch = "riscv64") {
        elf::EM_RISCV.0
    } else if cfg!(target_arch = "powerpc64") {
        elf::EM_PPC64.0
    } else if cfg!(target_arch = "s390x") {
        elf::EM_S390.0
    } else if cfg!(target_arch = "loongarch64") {
        elf::EM_LOONGARCH.0
    } else {
        panic!("this architecture is not 64-bit, or its e_machine is not named here")
    },
    class: 2,
    byte_order: if cfg!(target_endian = "little") { 1 } else { 2 },
};

impl std::fmt::Display for Architecture {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match elf::Machine(self.machine) {
            elf::EM_X86_64 => out.write_str("x86-64")?,
            elf::EM_386 => out.write_str("x86")?,
            elf::EM_AARCH64 => out.write_str("AArch64")?,
            elf::EM_ARM => out.write_str("ARM")?,
            elf::EM_RISCV => out.write_str("RISC-V")?,
            elf::EM_PPC64 => out.write_str("PowerPC64")?,
            elf::EM_S390 => out.write_str("S/390")?,
            elf::EM_LOONGARCH => out.write_str("LoongArch")?,
            other => write!(out, "ELF machine {}", other.0)?,
        }
        let bits = match self.class {
            1 => "32-bit",
            2 => "64-bit",
            _ => "of an unknown class",
        };
        let order = match self.byte_order {
            1 => "little-endian",
            2 => "big-endian",
            _ => "of an unknown byte order",
        };
        write!(out, " ({bits}, {order})")
    }
}

#[cfg(test)]
mod tests;
