//! Exact k-means of weighted values on a line.
//!
//! Clusters are runs of ascending values, so a clustering is a path over the cuts between them, and the squared error of a
//! run obeys the quadrangle inequality (Monge). The cheapest path of `k` links is found by its Lagrangian: with a price
//! `lambda` on every link, the number of links is free and one pass finds the cheapest path (Galil and Park 1990, "A
//! linear-time algorithm for concave one-dimensional dynamic programming"); a price is sought at which it has `k` links
//! (Aggarwal, Schieber and Tokuyama 1994, "Finding a minimum-weight k-link path in graphs with the concave Monge
//! property").

/// Distinct values in ascending order, and what each weighs, which is more than 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    /// The values, finite.
    pub(super) x: Vec<f64>,
    /// As many weights.
    pub(super) w: Vec<f64>,
}

impl Points {
    /// Adds a value above all others.
    pub(super) fn push(&mut self, x: f64, w: f64) {
        self.x.push(x);
        self.w.push(w);
    }
}

/// The means of the `k` clusters of least squared error, ascending; of fewer where there are fewer values.
pub(super) fn kmeans(points: &Points, k: usize) -> Vec<f64> {
    if points.x.len() <= k {
        return points.x.clone();
    }
    cuts(points, k).windows(2).map(|run| mean(points, run[0]..run[1])).collect()
}

/// The weighted mean of a run.
fn mean(points: &Points, run: std::ops::Range<usize>) -> f64 {
    let (x, w) = (&points.x[run.clone()], &points.w[run]);
    // Differences to a value of the run are small, and so is what rounding takes from them.
    let Some(first) = x.first().copied() else { return 0.0 };
    let (sum, weight) = x.iter().zip(w).fold((0.0, 0.0), |(s, n), (x, w)| (s + w * (x - first), n + w));
    first + sum / weight
}

/// Where the best `k` clusters of more than `k` values begin, and the number of values.
fn cuts(points: &Points, k: usize) -> Vec<usize> {
    let sums = Sums::new(points);
    let (steps, estimate) = spread(points);
    let mut price = estimate / (k as f64).powi(3);
    // A coarse problem of few cuts to choose from tells the price nearly.
    let coarse = k * 16;
    if coarse * 4 < points.x.len() {
        let at = sums.thin(&steps, coarse);
        price = Search::new(&at, k).run(price).1;
    }
    Search::new(&sums.0, k).run(price).0
}

/// How the cuts of good clusters lie, and the limit of `lambda * k^3` for large `k`, by the theory of fine quantizers
/// (Panter and Dite 1951): clusters are as dense as the cube root of the weight per length.
///
/// The first are sums that grow by equal amounts from cut to cut.
fn spread(points: &Points) -> (Vec<f64>, f64) {
    /// Values that share a density.
    const RUN: usize = 8;
    let (x, w) = (&points.x, &points.w);
    let mut sums = Vec::with_capacity(x.len() + 1);
    let mut sum = 0.0f64;
    sums.push(0.0);
    for start in (0..x.len()).step_by(RUN) {
        let end = (start + RUN).min(x.len());
        let length = x[end.min(x.len() - 1)] - x[start];
        let weight: f64 = w[start..end].iter().sum();
        let step = (weight * length * length).cbrt() / (end - start) as f64;
        for _ in start..end {
            sum += step;
            sums.push(sum);
        }
    }
    (sums, sum.powi(3) / 6.0)
}

/// Sums over all values before a cut, of weights, first and second moments. What rounding took from a sum is kept beside
/// it, so that a difference is good to the precision of itself: values of tiny spread beside an outlier still cluster.
#[derive(Clone, Copy, Default)]
struct Sum {
    w: f64,
    s: f64,
    q: f64,
    s_low: f64,
    q_low: f64,
}

struct Sums(Vec<Sum>);

impl Sums {
    fn new(points: &Points) -> Self {
        // The median: the error of a cluster is a difference of squares of distances to the centre, whose rounding must not
        // matter where most of the values are, wherever outliers may be.
        let mut left = points.w.iter().sum::<f64>() / 2.0;
        let median = points.x.iter().zip(&points.w).find(|(_, w)| {
            left -= **w;
            left <= 0.0
        });
        let centre = median.map_or(0.0, |(x, _)| *x);
        let mut sums = Vec::with_capacity(points.x.len() + 1);
        let mut at = Sum::default();
        sums.push(at);
        for (x, w) in points.x.iter().zip(&points.w) {
            let x = x - centre;
            at.w += w;
            add(&mut at.s, &mut at.s_low, w * x);
            add(&mut at.q, &mut at.q_low, w * (x * x));
            sums.push(at);
        }
        Self(sums)
    }

    /// About `count` of the cuts, such that `steps` grows by equal amounts between them.
    fn thin(&self, steps: &[f64], count: usize) -> Vec<Sum> {
        let last = self.0.len() - 1;
        let each = steps[last] / count as f64;
        let (mut kept, mut next) = (vec![self.0[0]], each);
        for (sum, step) in self.0.iter().zip(steps).take(last).skip(1) {
            if *step >= next {
                kept.push(*sum);
                next = step + each;
            }
        }
        kept.push(self.0[last]);
        kept
    }
}

/// Adds `x`, and what rounding takes to `low` (Knuth's two-sum).
fn add(sum: &mut f64, low: &mut f64, x: f64) {
    let total = *sum + x;
    let part = total - *sum;
    *low += (*sum - (total - part)) + (x - part);
    *sum = total;
}

/// The squared error of the cluster between two cuts.
#[inline]
fn error(a: &Sum, b: &Sum) -> f64 {
    let s = (b.s - a.s) + (b.s_low - a.s_low);
    let q = (b.q - a.q) + (b.q_low - a.q_low);
    q - s * s / (b.w - a.w)
}

/// A path over all cuts: where it touches, and its squared error.
#[derive(Clone)]
struct Path {
    cuts: Vec<usize>,
    error: f64,
}

impl Path {
    fn new(sums: &[Sum], cuts: Vec<usize>) -> Self {
        let error =
            cuts.windows(2).map(|l| if l[1] == l[0] + 1 { 0.0 } else { error(&sums[l[0]], &sums[l[1]]).max(0.0) });
        Self { error: error.sum(), cuts }
    }

    fn links(&self) -> usize {
        self.cuts.len() - 1
    }
}

/// A path and the price at which it is the cheapest.
struct Priced {
    path: Path,
    price: f64,
}

/// The search for the cheapest path of `k` links.
struct Search<'a> {
    sums: &'a [Sum],
    k: usize,
    /// The cost of the cheapest path to each cut, and the cut before it.
    cost: Vec<f64>,
    from: Vec<u32>,
    /// Cuts that are the best last cut for some later one, and from which one on.
    queue: Vec<(u32, u32)>,
}

impl<'a> Search<'a> {
    fn new(sums: &'a [Sum], k: usize) -> Self {
        Self { sums, k, cost: vec![0.0; sums.len()], from: vec![0; sums.len()], queue: Vec::with_capacity(sums.len()) }
    }

    /// The cheapest path of `k` links and its price, searched from `price` on.
    ///
    /// Between paths of fewer and of more links, prices follow `links ^ -3` nearly; where that gains nothing, the price
    /// that makes both cost the same finds a path between them, or shows that they are the cheapest at one price.
    fn run(mut self, mut price: f64) -> (Vec<usize>, f64) {
        let last = self.sums.len() - 1;
        if last <= self.k {
            return ((0..=last).collect(), price);
        }
        let mut few = Priced { path: Path::new(self.sums, vec![0, last]), price: f64::INFINITY };
        let mut many = Priced { path: Path::new(self.sums, (0..=last).collect()), price: 0.0 };
        if self.k == 1 {
            return (few.path.cuts, price);
        }
        for pass in 1.. {
            let (low, high) = (few.path.links(), many.path.links());
            let same = (few.path.error - many.path.error) / (high - low) as f64;
            if same.is_nan() || same <= 0.0 {
                break;
            }
            let chord = pass % 4 == 0 || high - low <= 2 || !(price > many.price && price < few.price);
            let now = if chord { same } else { price };
            let path = self.cheapest(now);
            let links = path.links();
            if links == self.k {
                return (path.cuts, now);
            }
            if links <= low || links >= high {
                if chord {
                    break;
                }
                // Gained nothing: an impossible price asks for the chord.
                price = f64::NAN;
                continue;
            }
            let side = if links < self.k { &mut few } else { &mut many };
            *side = Priced { path, price: now };
            price = interpolated(&few, &many, self.k, (links, now));
        }
        (spliced(&few.path.cuts, &many.path.cuts, self.k), price)
    }

    /// The cheapest path where each link costs its error and `price`.
    fn cheapest(&mut self, price: f64) -> Path {
        let Self { sums, cost, from, queue, .. } = self;
        let last = sums.len() - 1;
        queue.clear();
        queue.push((0, 1));
        let (mut head, mut hint) = (0, 1);
        for j in 1..=last {
            while queue.get(head + 1).is_some_and(|(_, start)| *start as usize <= j) {
                head += 1;
            }
            let i = queue[head].0 as usize;
            cost[j] = cost[i] + error(&sums[i], &sums[j]) + price;
            from[j] = i as u32;
            if j == last {
                break;
            }
            // Once a later cut is the better one to come from, it stays so.
            let beats = |i: usize, x: usize| cost[j] + error(&sums[j], &sums[x]) <= cost[i] + error(&sums[i], &sums[x]);
            while let Some((i, start)) = queue.last().map(|(i, start)| (*i as usize, (*start as usize).max(j + 1))) {
                if !beats(i, start) {
                    hint = first(start, last, hint, |x| beats(i, x));
                    if hint <= last {
                        queue.push((j as u32, hint as u32));
                    }
                    break;
                }
                queue.pop();
                if queue.len() <= head {
                    queue.push((j as u32, j as u32 + 1));
                    break;
                }
            }
        }
        let mut cuts = vec![last];
        let mut at = last;
        while at > 0 {
            at = from[at] as usize;
            cuts.push(at);
        }
        cuts.reverse();
        Path::new(sums, cuts)
    }
}

/// The first of `low + 1..=high` where `holds`, which is false at `low` and once true stays so; `high + 1` where it never
/// is. Looks around `hint` first, in steps that double.
#[inline]
fn first(low: usize, high: usize, hint: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut no, mut yes) = (low, high + 1);
    let at = hint.clamp(low + 1, high.max(low + 1));
    if at > high {
        return high + 1;
    }
    let mut step = 1;
    if holds(at) {
        yes = at;
        while yes > no + step {
            let x = yes - step;
            if holds(x) {
                yes = x;
                step *= 2;
            } else {
                no = x;
                break;
            }
        }
    } else {
        no = at;
        while no + step < yes {
            let x = no + step;
            if holds(x) {
                yes = x;
                break;
            }
            no = x;
            step *= 2;
        }
    }
    while yes - no > 1 {
        let x = usize::midpoint(no, yes);
        if holds(x) {
            yes = x;
        } else {
            no = x;
        }
    }
    yes
}

/// The price at which `k` links are to be expected; `seen` is the pass before.
fn interpolated(few: &Priced, many: &Priced, k: usize, seen: (usize, f64)) -> f64 {
    let log = |links: usize| (links as f64).ln();
    let (a, b) = (few.price, many.price);
    if a.is_finite() && b > 0.0 {
        let (low, high) = (few.path.links(), many.path.links());
        let part = (log(k) - log(low)) / (log(high) - log(low));
        return (a.ln() + part * (b.ln() - a.ln())).exp();
    }
    seen.1 * (seen.0 as f64 / k as f64).powi(3)
}

/// A path of `k` links that is the cheapest at the price at which `few` (less than `k` links) and `many` (more) both are:
/// it begins as the first and ends as the second.
fn spliced(few: &[usize], many: &[usize], k: usize) -> Vec<usize> {
    let shift = many.len() - 1 - k;
    // At the first such place a link of `few` spans one of `many`, and exchanging their ends makes neither path dearer.
    let at = (1..few.len()).find(|a| many[a + shift] <= few[*a]).unwrap_or(1);
    few[..at].iter().chain(&many[at + shift..]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random (splitmix64).
    struct Random(u64);
    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
        fn below(&mut self, n: usize) -> usize {
            (self.next() % n as u64) as usize
        }
        fn unit(&mut self) -> f64 {
            (self.next() >> 11) as f64 / (1u64 << 53) as f64
        }
        fn normal(&mut self) -> f64 {
            (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
        }
    }

    /// The squared error of a run, in two passes.
    fn exact(points: &Points, run: std::ops::Range<usize>) -> f64 {
        let m = mean(points, run.clone());
        run.map(|i| points.w[i] * (points.x[i] - m).powi(2)).sum()
    }

    fn error_of(points: &Points, cuts: &[usize]) -> f64 {
        cuts.windows(2).map(|run| exact(points, run[0]..run[1])).sum()
    }

    /// The least squared error of `k` clusters, by trying every last cluster.
    fn least(points: &Points, k: usize) -> f64 {
        let n = points.x.len();
        let runs: Vec<Vec<f64>> = (0..n).map(|i| (i..=n).map(|j| exact(points, i..j)).collect()).collect();
        let mut best: Vec<f64> = (0..=n).map(|j| if j == 0 { 0.0 } else { f64::INFINITY }).collect();
        for _ in 0..k {
            let next = |j: usize| (0..j).map(|i| best[i] + runs[i][j - i]).fold(f64::INFINITY, f64::min);
            best = (0..=n).map(next).collect();
        }
        best[n]
    }

    fn points(mut values: Vec<(f64, f64)>) -> Points {
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut points = Points::default();
        for (x, w) in values {
            if points.x.last() == Some(&x) {
                *points.w.last_mut().expect("as many weights") += w;
            } else {
                points.push(x, w);
            }
        }
        points
    }

    #[test]
    fn the_error_is_the_least_there_is() {
        let mut r = Random(1);
        for case in 0..1000 {
            let n = 2 + r.below(60);
            let values = (0..n).map(|i| {
                let x = match case % 8 {
                    0 => r.normal(),
                    1 => i as f64,
                    2 => r.below(12) as f64 * 0.25,
                    // Subnormals of half precision.
                    3 => (r.below(1024) as f64 - 512.0) * 2f64.powi(-24),
                    // Heavy tails.
                    4 => (r.normal() * 4.0).exp() * if r.below(2) == 0 { -1e-3 } else { 1e-3 },
                    5 => 1000.0 + r.unit() * 1e-3,
                    6 => {
                        if i == 0 {
                            65504.0
                        } else {
                            r.normal() * 1e-4
                        }
                    }
                    _ => (r.below(3) as f64) * 10.0 + r.below(8) as f64 * 0.125,
                };
                (x, if case % 3 == 0 { 0.01 + r.unit() } else { 1.0 + r.below(9) as f64 })
            });
            let points = points(values.collect());
            let k = 1 + r.below(20);
            if points.x.len() <= k {
                assert_eq!(kmeans(&points, k), points.x);
                continue;
            }
            let cuts = cuts(&points, k);
            assert_eq!(cuts.len(), k + 1, "case {case}");
            let (found, want) = (error_of(&points, &cuts), least(&points, k));
            assert!(
                found <= want * (1.0 + 1e-9) + 1e-30,
                "case {case}: {found} for {want}, {} values, k={k}",
                points.x.len()
            );
        }
    }

    #[test]
    fn large_problems_have_as_many_clusters_as_asked_for() {
        let mut r = Random(2);
        let normal = points((0..20_000).map(|_| ((r.normal() * 2048.0).round(), 1.0)).collect());
        let even = points((0..5000).map(|i| (f64::from(i), 1.0)).collect());
        for points in [&normal, &even] {
            for k in [2, 16, 64, 256] {
                assert_eq!(cuts(points, k).len(), k + 1);
            }
        }
        // Clusters of equal size.
        let found = error_of(&even, &cuts(&even, 250));
        assert_eq!(found, 250.0 * (20.0 * 399.0 / 12.0));
    }
}
