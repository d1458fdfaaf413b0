//! The files: what is in them, and how they come and go.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use agentrouter_api::DESCRIPTOR_POOL;
use agentrouter_api::configurator::Configuration;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};

const TEMPORARY: &str = ".tmp";

/// What a file holds.
pub(super) struct Held {
    pub(super) configuration: Configuration,
    pub(super) text: Vec<u8>,
}

fn descriptor() -> io::Result<MessageDescriptor> {
    DESCRIPTOR_POOL
        .get_message_by_name("agentrouter.configurator.v1.Configuration")
        .ok_or_else(|| io::Error::other("the API has no message Configuration"))
}

/// A configuration as a file: standard ProtoJSON, indented, members in the order of their field numbers. Equal
/// configurations are equal texts.
pub(super) fn render(configuration: &Configuration) -> io::Result<Vec<u8>> {
    let message = DynamicMessage::decode(descriptor()?, configuration.encode_to_vec().as_slice())
        .map_err(io::Error::other)?;
    let mut text = serde_json::to_vec_pretty(&message)?;
    text.push(b'\n');
    Ok(text)
}

fn parse(text: &[u8]) -> io::Result<Option<Configuration>> {
    let descriptor = descriptor()?;
    let mut json = serde_json::Deserializer::from_slice(text);
    // Members of a newer worker's file are passed over: what is asked of a file is its version.
    let options = prost_reflect::DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut json, &options);
    let message = message.and_then(|message| json.end().map(|()| message));
    Ok(message.ok().and_then(|message| message.transcode_to().ok()))
}

/// What a file holds; nothing where it does not exist or is no configuration.
pub(super) fn read(path: &Path) -> io::Result<Option<Held>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(configuration) = parse(&text)? else {
        tracing::warn!(path = %path.display(), "the file holds no configuration");
        return Ok(None);
    };
    Ok(Some(Held { configuration, text }))
}

/// Puts a file in place, or leaves everything as it was.
pub(crate) fn write(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}{TEMPORARY}"));
    let written = write_new(&temporary, text).and_then(|()| fs::rename(&temporary, folder.join(name)));
    if let Err(error) = written {
        // It is in nobody's way, but may hold secrets.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_folder(folder)
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    remove_if_there(path)?;
    // A new file, so that neither a link nor the mode of an old one has a say.
    let mut file = private(OpenOptions::new().write(true).create_new(true)).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Removes a file for good.
pub(super) fn remove(folder: &Path, path: &Path) -> io::Result<()> {
    if remove_if_there(path)? { sync_folder(folder) } else { Ok(()) }
}

/// Removes what a crash left of writes that did not finish.
pub(crate) fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with('.') && name.ends_with(&format!(".json{TEMPORARY}")) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    private(OpenOptions::new().write(true).create(true).truncate(false)).open(path)
}

pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Readable and writable by its owner only, where the system knows such a thing.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Makes a rename or a removal survive a power cut. Only Unix opens folders for that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
