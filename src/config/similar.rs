//! What somebody probably meant.

/// The candidate most like `word`, if one is like it at all: at most a third of the letters changed, added, left
/// out or swapped with their neighbour. Of equals the first. Letters' case, `-` and `_` are the same.
/// O(candidates x their length x that of `word`); words longer than 64 are like nothing.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LENGTH_MAX: usize = 64;
    let word = folded(word);
    if word.len() > LENGTH_MAX {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let other = folded(candidate);
        let allowed = (word.len().max(other.len())).div_ceil(3).min(3);
        if other.len() > LENGTH_MAX || word.len().abs_diff(other.len()) > allowed {
            continue;
        }
        let distance = distance(&word, &other);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

fn folded(word: &str) -> Vec<char> {
    word.chars().flat_map(char::to_lowercase).map(|c| if c == '_' { '-' } else { c }).collect()
}

/// Optimal string alignment: insertions, deletions, changes and swaps of neighbours count one each.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &y) in b.iter().enumerate() {
            let mut least = (above[j] + usize::from(x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_are_understood() {
        let figures = ["giraffe", "dragon", "duck", "parrot"];
        assert_eq!(closest("girafe", figures), Some("giraffe"));
        assert_eq!(closest("GIARFFE", figures), Some("giraffe"));
        assert_eq!(closest("dcuk", figures), Some("duck"));
        assert_eq!(closest("submarine", figures), None);
        assert_eq!(closest("", figures), None);
    }

    #[test]
    fn the_nearest_wins_and_the_first_of_equals() {
        assert_eq!(closest("p2", ["p1", "p3"]), Some("p1"));
        assert_eq!(closest("listn", ["listen", "list"]), Some("listen"));
    }
}
