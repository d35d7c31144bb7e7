//! Sequences of known lengths that lie one step after the other, of each step as many rows as sequences go on.

use mlconv_mil::ir::Value;
use mlconv_source::{Entry, Lower, LowerError, Lowered, Size};
use mlconv_tensor::{DType, Tensor};

type Result<T, E = LowerError> = std::result::Result<T, E>;

/// Steps beyond which sequences are refused.
const MAX_STEPS: usize = 1 << 20;

/// How many sequences go on at each step.
pub(super) struct Packed {
    counts: Vec<i64>,
}

/// The numbers of an argument, which must be known.
fn known(n: &mut Lower<'_>, name: &'static str) -> Result<Vec<i64>> {
    match n.given_tensor(name)? {
        Some(t) => Ok(t.to_i64()),
        None => {
            let v = n.value(name)?;
            n.known_ints(v).ok_or_else(|| LowerError::NotFixed { what: "the lengths of packed sequences".to_owned() })
        }
    }
}

impl Packed {
    /// That of the argument `batch_sizes`.
    pub(super) fn given(n: &mut Lower<'_>) -> Result<Self> {
        Self::of(known(n, "batch_sizes")?)
    }

    fn of(counts: Vec<i64>) -> Result<Self> {
        let most = counts.first().copied().unwrap_or(0);
        let falls = counts.windows(2).all(|w| w[0] >= w[1]) && counts.last().is_some_and(|c| *c > 0);
        let all = usize::try_from(most).ok().and_then(|m| m.checked_mul(counts.len()));
        if !falls || all.is_none_or(|all| all > MAX_STEPS) {
            return Err(LowerError::form("packed sequences of such lengths"));
        }
        Ok(Self { counts })
    }

    fn sequences(&self) -> i64 {
        self.counts.first().copied().unwrap_or(0)
    }

    /// The number of steps of each sequence, the longest first.
    fn own_lengths(&self) -> Vec<i64> {
        (0..self.sequences()).map(|b| self.counts.iter().filter(|c| **c > b).count() as i64).collect()
    }

    /// As a value, where not all are alike.
    pub(super) fn lengths(&self, n: &mut Lower<'_>) -> Result<Option<Value>> {
        if self.counts.iter().all(|c| *c == self.sequences()) {
            return Ok(None);
        }
        n.const_ints(&self.own_lengths()).map(Some)
    }

    /// The argument `data` as `[t, b, ..]`; behind the end of a sequence stands anything.
    pub(super) fn padded(&self, n: &mut Lower<'_>) -> Result<Value> {
        let x = n.value("data")?;
        let total: i64 = self.counts.iter().sum();
        if !n.shape(x)?.first().is_some_and(|d| d.is(total)) {
            return Err(LowerError::form(format!("{total} steps of sequences in {}", n.ty(x)?)));
        }
        let (mut places, mut start) = (vec![], 0);
        for count in &self.counts {
            places.extend((0..self.sequences()).map(|b| if b < *count { start + b } else { 0 }));
            start += count;
        }
        let rows = n.gather_at(x, 0, &places)?;
        let mut sizes = vec![Size::Known(self.counts.len() as i64), Size::Known(self.sequences())];
        sizes.extend((1..n.rank(x)?).map(|axis| Size::Of(x, axis)));
        n.reshape(rows, &sizes)
    }

    /// `[t, b, ..]`, packed.
    pub(super) fn packed(&self, n: &mut Lower<'_>, x: Value) -> Result<Value> {
        let rows = n.merge_axes(x, 0, 2)?;
        let at = |(t, count): (usize, &i64)| (0..*count).map(move |b| (t as i64, b)).collect::<Vec<_>>();
        let all = self.counts.iter().enumerate().flat_map(at);
        let places: Vec<i64> = all.map(|(t, b)| t * self.sequences() + b).collect();
        n.gather_at(rows, 0, &places)
    }
}

fn ints(all: &[i64]) -> Entry {
    Entry::Const(Tensor::from_i64(DType::I64, &[all.len()], all))
}

/// Packs sequences of known lengths.
pub(super) fn pack(n: &mut Lower<'_>) -> Lowered {
    let lengths = known(n, "lengths")?;
    let mut x = n.value("input")?;
    if n.flag("batch_first", false)? {
        let perm: Vec<i64> = [1, 0].into_iter().chain(2..n.rank(x)? as i64).collect();
        x = n.transpose(x, &perm)?;
    }
    let shape = n.shape(x)?;
    let steps = lengths.first().copied().unwrap_or(0);
    if !(1..=MAX_STEPS as i64).contains(&steps) || shape.rank() < 2 || !shape[1].is(lengths.len() as i64) {
        return Err(LowerError::form(format!("sequences of lengths {lengths:?} in {}", n.ty(x)?)));
    }
    if lengths.windows(2).any(|w| w[0] < w[1]) {
        return Err(LowerError::form("sequences that are not sorted by length, the longest first"));
    }
    let counts: Vec<i64> = (0..steps).map(|t| lengths.partition_point(|l| *l > t) as i64).collect();
    let packed = Packed::of(counts)?;
    let x = n.slice(x, 0, 0, Some(steps))?;
    let y = packed.packed(n, x)?;
    Ok(vec![Entry::Value(y), ints(&packed.counts)])
}

/// Sequences again, each with what is given behind its end.
pub(super) fn pad(n: &mut Lower<'_>) -> Lowered {
    let packed = Packed::given(n)?;
    let (value, total) = (n.number("padding_value")?.unwrap_or(0.0), n.int_or("total_length", -1)?);
    let mut x = packed.padded(n)?;
    let (steps, lengths) = (packed.counts.len(), packed.own_lengths());
    let rank = n.rank(x)?;
    let fill = n.scalar_like(x, value)?;
    if packed.lengths(n)?.is_some() {
        let goes_on = (0..steps).flat_map(|t| lengths.iter().map(move |l| (t as i64) < *l));
        let mut shape = vec![steps, lengths.len()];
        shape.resize(rank, 1);
        let goes_on = n.add_const(Tensor::from_bools(&shape, goes_on))?;
        x = n.select(goes_on, x, fill)?;
    }
    let more = total.saturating_sub(steps as i64);
    if more > 0 {
        if more > MAX_STEPS as i64 {
            return n.bad_attr("total_length", "a number of steps that memory holds");
        }
        let mut pad = vec![0; 2 * rank];
        pad[1] = more;
        x = n.pad(x, &pad, value as f32)?;
    }
    if n.flag("batch_first", false)? {
        let perm: Vec<i64> = [1, 0].into_iter().chain(2..rank as i64).collect();
        x = n.transpose(x, &perm)?;
    }
    Ok(vec![Entry::Value(x), ints(&lengths)])
}
