//! The comments of the protos as descriptions.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, FileDescriptor};

/// The leading comments of everything in a pool, by file and place in it.
#[derive(Debug)]
pub(super) struct Comments(HashMap<(String, Vec<i32>), String>);

impl Comments {
    /// Reads the comments of a pool. One that was compiled without them has none.
    pub(super) fn read(pool: &DescriptorPool) -> Self {
        let mut comments = HashMap::new();
        for file in pool.files() {
            let info = file.file_descriptor_proto().source_code_info.as_ref();
            for location in info.map(|info| info.location.as_slice()).unwrap_or_default() {
                let text = paragraphs(location.leading_comments());
                if !text.is_empty() {
                    comments.insert((file.name().to_owned(), location.path.clone()), text);
                }
            }
        }
        Self(comments)
    }

    /// The comment of what lies at `path` in a file.
    pub(super) fn of(&self, file: &FileDescriptor, path: &[i32]) -> Option<&str> {
        self.0.get(&(file.name().to_owned(), path.to_owned())).map(String::as_str)
    }
}

/// Lines of one paragraph on one line, since they were only broken to be short; list items stay apart.
fn paragraphs(comment: &str) -> String {
    let mut text = String::new();
    for line in comment.lines() {
        let line = line.trim();
        if line.is_empty() {
            if !text.is_empty() && !text.ends_with("\n\n") {
                text.push_str("\n\n");
            }
        } else {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push(if line.starts_with("- ") { '\n' } else { ' ' });
            }
            text.push_str(line);
        }
    }
    text.trim_end().to_owned()
}

/// The first sentence without its full stop.
pub(super) fn summary(text: &str) -> &str {
    let first = text.split("\n\n").next().unwrap_or_default();
    let end = first.find(". ").unwrap_or(first.len());
    first.get(..end).unwrap_or(first).trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_paragraphs() {
        let comment = " One sentence\n that goes on. Another.\n\n A list:\n - one\n - two\n";
        assert_eq!(paragraphs(comment), "One sentence that goes on. Another.\n\nA list:\n- one\n- two");
        assert_eq!(summary(&paragraphs(comment)), "One sentence that goes on");
        assert_eq!(summary("Only one."), "Only one");
    }
}
