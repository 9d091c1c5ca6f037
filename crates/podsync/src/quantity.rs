//! Reading quantities as whole or thousandth units, rounded up, saturating. The arithmetic is `machinery`'s; here text
//! that is no quantity counts as zero, since the API server admits none. Called by requests, cgroup and downward.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths.
pub fn milli(q: &Quantity) -> i64 {
    machinery::quantity::Quantity::parse(&q.0).map_or(0, |q| q.milli_value())
}

/// Whole units.
pub fn value(q: &Quantity) -> i64 {
    machinery::quantity::Quantity::parse(&q.0).map_or(0, |q| q.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        for (text, m, v) in
            [("100m", 100, 1), ("1.5", 1500, 2), ("1k", 1_000_000, 1000), ("128Mi", 134_217_728_000, 134_217_728), ("x", 0, 0)]
        {
            let q = Quantity(text.to_owned());
            assert_eq!((milli(&q), value(&q)), (m, v), "{text}");
        }
    }
}
