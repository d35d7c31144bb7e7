//! Damage to files: from a seed, the same on every run.

/// A sequence of numbers that looks random. Source: Marsaglia 2003, "Xorshift RNGs".
pub(crate) struct Numbers(u64);

/// Integers that readers stumble over.
const ODD: [u64; 14] = [
    0,
    1,
    2,
    7,
    63,
    64,
    65,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fff8,
    u64::MAX,
];

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    fn odd(&mut self) -> u64 {
        ODD[self.below(ODD.len())]
    }

    /// A part of `0..len`, mostly a short one.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        let longest = [4, 16, 256, len][self.below(4)];
        start..(start + 1 + self.below(longest)).min(len)
    }

    /// `bytes` with one to three injuries; `other` is a file to take parts from.
    pub(crate) fn damaged(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(3) {
            self.injure(&mut out, other);
        }
        out
    }

    fn injure(&mut self, out: &mut Vec<u8>, other: &[u8]) {
        if out.is_empty() {
            return;
        }
        let at = self.below(out.len());
        match self.below(9) {
            0 => out.truncate(at),
            1 => out[at] ^= 1 << self.below(8),
            2 => {
                let part = self.range(out.len());
                out.drain(part);
            }
            3 => {
                let part = self.range(out.len());
                let copy = out[part].to_vec();
                out.splice(at..at, copy);
            }
            4 => {
                let part = self.range(other.len());
                let copy = other.get(part).unwrap_or_default().to_vec();
                out.splice(at..at, copy);
            }
            5 => {
                // A varint of ten bytes: the greatest number that a protobuf holds.
                out.splice(at..at, [[0xff; 9].as_slice(), &[0x01]].concat());
            }
            6 => {
                let odd = self.odd().to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)].min(out.len() - at);
                out[at..at + width].copy_from_slice(&odd[..width]);
            }
            7 => {
                let part = self.range(out.len());
                out[part].fill([0, 0xff][self.below(2)]);
            }
            _ => {
                for _ in 0..8 {
                    let at = self.below(out.len());
                    out[at] = self.below(256) as u8;
                }
            }
        }
    }

    /// A protobuf message with one to three of its fields, at any depth, injured: lengths stay right, so that a reader
    /// gets to see what is wrong.
    pub(crate) fn damaged_message(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(3) {
            out = self.injured_message(&out, 0);
        }
        out
    }

    fn injured_message(&mut self, bytes: &[u8], depth: usize) -> Vec<u8> {
        let Some(mut fields) = fields(bytes).filter(|f| !f.is_empty()) else { return self.damaged(bytes, bytes) };
        let at = self.below(fields.len());
        let nested = match &fields[at].content {
            Content::Bytes(b) => b.len() > 1 && self::fields(b).is_some(),
            Content::Varint(_) | Content::Fixed(_) => false,
        };
        if nested && depth < 12 && self.below(5) > 0 {
            let Content::Bytes(b) = &fields[at].content else { unreachable!("only bytes nest") };
            fields[at].content = Content::Bytes(self.injured_message(b, depth + 1));
            return encoded(&fields);
        }
        match self.below(5) {
            0 => {
                fields.remove(at);
            }
            1 => fields.insert(self.below(fields.len()), fields[at].clone()),
            2 => {
                let other = self.below(fields.len());
                let content = fields[other].content.clone();
                fields[at].content = content;
            }
            3 => fields[at].number = 1 + self.below(30) as u64,
            _ => {
                let odd = self.odd();
                match &mut fields[at].content {
                    Content::Varint(v) => *v = odd,
                    Content::Fixed(b) => b.iter_mut().zip(odd.to_le_bytes()).for_each(|(b, o)| *b = o),
                    Content::Bytes(b) => *b = self.damaged(b, bytes),
                }
            }
        }
        encoded(&fields)
    }

    /// A program's text with one to three of its words exchanged, repeated or lost.
    pub(crate) fn damaged_text(&mut self, text: &str, other: &str) -> String {
        let split = |t: &str| -> Vec<String> {
            let mut words = vec![String::new()];
            for c in t.chars() {
                let joins = |c: char| c.is_alphanumeric() || "_.%@".contains(c);
                let last = words.last().and_then(|w| w.chars().last());
                if !(joins(c) && last.is_none_or(joins)) {
                    words.push(String::new());
                }
                words.last_mut().expect("never empty").push(c);
            }
            words
        };
        let (mut words, others) = (split(text), split(other));
        for _ in 0..=self.below(3) {
            let at = self.below(words.len());
            match self.below(6) {
                0 => {
                    let part = self.range(words.len());
                    words.drain(part);
                    words.push(String::new());
                }
                1 => {
                    let part = self.range(words.len());
                    let copy = words[part].to_vec();
                    words.splice(at..at, copy);
                }
                2 => {
                    let n = self.below(words.len());
                    words.swap(at, n);
                }
                3 => words[at].clone_from(&others[self.below(others.len())]),
                _ => {
                    // A number in the place of another.
                    let numbers: Vec<usize> =
                        (0..words.len()).filter(|i| words[*i].starts_with(|c: char| c.is_ascii_digit())).collect();
                    if !numbers.is_empty() {
                        let odd =
                            ["0", "1", "-1", "3", "1000", "65536", "2147483648", "9223372036854775807", "1e30", "n"];
                        odd[self.below(odd.len())].clone_into(&mut words[numbers[self.below(numbers.len())]]);
                    }
                }
            }
        }
        words.concat()
    }
}

/// One field of a protobuf message.
#[derive(Clone)]
struct Field {
    number: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Varint(u64),
    /// Four or eight bytes.
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut out = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        out |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(out);
        }
    }
    None
}

/// The fields of a message; `None` where the bytes are none.
fn fields(bytes: &[u8]) -> Option<Vec<Field>> {
    let (mut out, mut at) = (vec![], 0);
    while at < bytes.len() {
        let key = varint(bytes, &mut at)?;
        let (number, kind) = (key >> 3, key & 7);
        if number == 0 || number > 1000 {
            return None;
        }
        let content = match kind {
            0 => Content::Varint(varint(bytes, &mut at)?),
            1 | 5 => {
                let len = if kind == 1 { 8 } else { 4 };
                let end = at.checked_add(len)?;
                let part = bytes.get(at..end)?.to_vec();
                at = end;
                Content::Fixed(part)
            }
            2 => {
                let len = usize::try_from(varint(bytes, &mut at)?).ok()?;
                let end = at.checked_add(len)?;
                let part = bytes.get(at..end)?.to_vec();
                at = end;
                Content::Bytes(part)
            }
            _ => return None,
        };
        out.push(Field { number, content });
    }
    Some(out)
}

fn encoded(fields: &[Field]) -> Vec<u8> {
    let mut out = vec![];
    let put = |out: &mut Vec<u8>, mut v: u64| {
        while v >= 0x80 {
            out.push(v as u8 | 0x80);
            v >>= 7;
        }
        out.push(v as u8);
    };
    for f in fields {
        let kind = match &f.content {
            Content::Varint(_) => 0,
            Content::Fixed(b) if b.len() == 8 => 1,
            Content::Fixed(_) => 5,
            Content::Bytes(_) => 2,
        };
        put(&mut out, f.number << 3 | kind);
        match &f.content {
            Content::Varint(v) => put(&mut out, *v),
            Content::Fixed(b) => out.extend(b),
            Content::Bytes(b) => {
                put(&mut out, b.len() as u64);
                out.extend(b);
            }
        }
    }
    out
}
