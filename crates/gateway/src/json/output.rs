//! How messages become text, where ProtoJSON leaves a choice.

/// Which fields are written though nobody set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// Every field: those without presence with their default, and those with presence as `null`. Members of a oneof
    /// are written where they are set.
    Always,
    /// Fields without presence, lists and maps.
    Implicit,
    /// None.
    Never,
}

/// What members are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// As in the proto file.
    Proto,
    /// In lowerCamelCase, or as `json_name` has them.
    Json,
}

/// How answers are written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonOutput {
    /// The fields that are written though nobody set them.
    pub defaults: Defaults,
    /// What members are called.
    pub names: Names,
    /// Enums as numbers instead of names.
    pub enums_as_numbers: bool,
    /// Integers of 64 bits as numbers instead of strings. Many readers of JSON lose digits of them.
    pub int64_as_numbers: bool,
    /// Over several lines, indented. Streams are never written so.
    pub pretty: bool,
}

impl JsonOutput {
    /// Of REST answers: names as in the proto file, and every field without presence is written.
    pub const REST: Self = Self {
        defaults: Defaults::Implicit,
        names: Names::Proto,
        enums_as_numbers: false,
        int64_as_numbers: false,
        pretty: false,
    };
    /// ProtoJSON as it is without options: JSON names, and no defaults.
    pub const PROTO: Self = Self { defaults: Defaults::Never, names: Names::Json, ..Self::REST };
}

impl Default for JsonOutput {
    /// [`JsonOutput::REST`].
    fn default() -> Self {
        Self::REST
    }
}

/// JSON that was written without any space, over several lines.
pub(crate) fn pretty(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let mut depth = 0;
    let (mut in_string, mut is_escaped) = (false, false);
    let mut bytes = compact.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_string {
            out.push(byte);
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' if bytes.peek().is_some_and(|next| matches!(next, b'}' | b']')) => {
                out.push(byte);
                out.extend(bytes.next());
            }
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                line(&mut out, depth);
            }
            b'}' | b']' => {
                depth = usize::saturating_sub(depth, 1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out.push(b'\n');
    out
}

fn line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A4 #61.
    #[test]
    fn pretty_text_is_the_same_json() {
        let compact = br#"{"a":{},"b":[],"c":"x{,:\"[\\","d":[1,{"e":null}],"f":"\\"}"#;
        let text = String::from_utf8(pretty(compact)).expect("text");
        assert!(
            text.starts_with(
                "{\n  \"a\": {},\n  \"b\": [],\n  \"c\": \"x{,:\\\"[\\\\\",\n  \"d\": [\n    1,"
            )
        );
        let read = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
        assert_eq!(read(text.as_bytes()), read(compact));
    }
}
