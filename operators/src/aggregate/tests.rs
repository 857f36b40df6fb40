//! Each aggregate over records, over parts of them that are merged, and through its encoding after every step.

use millstream_runtime::codec;
use proptest::prelude::*;

use super::*;

/// What comes of the records: added one by one, each time to what was written and read back.
fn of<In, A: Aggregate<In>>(aggregate: &A, records: &[In]) -> A::Out {
    let acc = acc(aggregate, records);
    aggregate.finish(&acc)
}

fn acc<In, A: Aggregate<In>>(aggregate: &A, records: &[In]) -> A::Acc {
    let mut acc = aggregate.start();
    for record in records {
        aggregate.add(&mut acc, record).unwrap();
        acc = codec::decode(&codec::encode(&acc).unwrap()).unwrap();
    }
    acc
}

/// As [`of`], of two parts that are merged.
fn merged<In, A: Aggregate<In>>(aggregate: &A, (left, right): (&[In], &[In])) -> A::Out {
    let mut left = acc(aggregate, left);
    aggregate.merge(&mut left, acc(aggregate, right)).unwrap();
    aggregate.finish(&left)
}

#[test]
fn of_nothing_there_is_nothing() {
    let nothing: [i64; 0] = [];
    let all = (
        Count,
        Sum::of(|n: &i64| *n),
        Min::of(|n: &i64| *n),
        Avg::of(|n: &i64| *n),
        Variance::population(|n: &i64| *n),
        ApproxDistinct::of(|n: &i64| *n),
        CollectList::of(|n: &i64| *n),
        TopK::of(3, |n: &i64| *n),
    );
    assert_eq!(of(&all, &nothing), (0, 0, None, None, None, 0, vec![], vec![]));
    assert_eq!(merged(&all, (&nothing, &nothing)), (0, 0, None, None, None, 0, vec![], vec![]));
    assert_eq!(merged(&all, (&nothing, &[4])), (1, 4, Some(4), Some(4.0), Some(0.0), 1, vec![4], vec![4]));
    assert_eq!(merged(&all, (&[4], &nothing)), (1, 4, Some(4), Some(4.0), Some(0.0), 1, vec![4], vec![4]));
}

#[test]
fn several_at_once_see_every_record() {
    let words = ["b", "a", "b", "c"];
    let all = (Count, Min::of(|word: &&str| (*word).to_owned()), Max::of(|word: &&str| (*word).to_owned()));
    assert_eq!(of(&all, &words), (4, Some("a".to_owned()), Some("c".to_owned())));
}

#[test]
fn a_sum_that_leaves_its_range_is_an_error_and_leaves_the_sum() {
    let sum = Sum::of(|n: &i64| *n);
    let mut acc = i64::MAX;
    let text = Aggregate::<i64>::add(&sum, &mut acc, &1).unwrap_err().to_string();
    assert!(text.contains("9223372036854775807 and 1") && text.contains("i64"), "{text}");
    assert_eq!(acc, i64::MAX);
    let unsigned = Sum::of(|n: &u64| *n);
    let mut full = u64::MAX;
    assert!(Aggregate::<u64>::merge(&unsigned, &mut full, 1).is_err());
    assert_eq!(of(&Sum::of(|n: &u8| *n), &[200_u8, 200]), 400, "bytes are added up as u64");
    assert_eq!(of(&Sum::of(|n: &f32| *n), &[0.5_f32, 0.25]), 0.75);
}

#[test]
fn what_cannot_be_compared_is_never_the_least_or_the_greatest() {
    let with_nan = [f64::NAN, 2.0, f64::NAN, 1.0, 3.0];
    assert_eq!(of(&Min::of(|n: &f64| *n), &with_nan), Some(1.0));
    assert_eq!(of(&Max::of(|n: &f64| *n), &with_nan), Some(3.0));
    assert_eq!(of(&TopK::of(2, |n: &f64| *n), &with_nan), [3.0, 2.0]);
    assert_eq!(of(&Max::of(|n: &f64| *n), &[f64::NAN]), None);
}

#[test]
fn of_equal_values_the_first_stays() {
    // Only the number counts: the comparison of the pair does not see the letter.
    #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    struct Entry(u8, char);
    impl PartialEq for Entry {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl PartialOrd for Entry {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            self.0.partial_cmp(&other.0)
        }
    }
    let entries = [Entry(1, 'a'), Entry(2, 'b'), Entry(2, 'c'), Entry(1, 'd'), Entry(2, 'e')];
    let letters = |top: Vec<Entry>| top.into_iter().map(|entry| entry.1).collect::<String>();
    assert_eq!(letters(of(&TopK::of(4, Entry::clone), &entries)), "bcea");
    assert_eq!(of(&Max::of(Entry::clone), &entries).unwrap().1, 'b');
    assert_eq!(of(&Min::of(Entry::clone), &entries).unwrap().1, 'a');
    assert!(of(&TopK::of(0, Entry::clone), &entries).is_empty());
}

#[test]
fn variance_is_exact_where_squares_of_sums_are_not() {
    // The numbers differ in their ninth digit: a sum of squares minus a square of sums would have no correct digit.
    let numbers = [1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0];
    assert_eq!(of(&Variance::sample(|n: &f64| *n), &numbers), Some(30.0));
    assert_eq!(of(&Variance::population(|n: &f64| *n), &numbers), Some(22.5));
    assert_eq!(of(&Avg::of(|n: &f64| *n), &numbers), Some(1e9 + 10.0));
    assert_eq!(of(&Variance::sample(|n: &f64| *n), &[5.0]), None);
    let (left, right) = numbers.split_at(1);
    assert_eq!(merged(&Variance::sample(|n: &f64| *n), (left, right)), Some(30.0));
}

/// S-AGG-04
#[test]
fn distinct_keys_are_estimated_within_a_few_percent_and_few_of_them_exactly() {
    let distinct = ApproxDistinct::of(|n: &u64| n % 50_000);
    let numbers: Vec<u64> = (0..200_000).collect();
    let mut sketch = Aggregate::<u64>::start(&distinct);
    for number in &numbers {
        distinct.add(&mut sketch, number).unwrap();
    }
    let found = Aggregate::<u64>::finish(&distinct, &sketch) as f64;
    assert!((found - 50_000.0).abs() < 50_000.0 * 0.05, "{found}");
    assert!(codec::encode(&sketch).unwrap().len() < 2_500);
    assert_eq!(of(&ApproxDistinct::of(|word: &String| word.clone()), &["a", "b", "a"].map(String::from)), 2);
    let (left, right) = numbers.split_at(30_000);
    let both = merged(&ApproxDistinct::of(|n: &u64| n % 1_000), (&left[..3_000], &right[..3_000])) as f64;
    assert!((both - 1_000.0).abs() < 60.0, "{both}");
}

proptest! {
    #[test]
    fn parts_that_are_merged_give_what_the_whole_gives(numbers in prop::collection::vec(-1_000_i64..1_000, 0..40), cut in 0_usize..40) {
        let all = (
            Count,
            Sum::of(|n: &i64| *n),
            Min::of(|n: &i64| *n),
            Max::of(|n: &i64| *n),
            CollectList::of(|n: &i64| *n),
            TopK::of(5, |n: &i64| *n),
            ApproxDistinct::of(|n: &i64| *n / 100),
        );
        let parts = numbers.split_at(cut.min(numbers.len()));
        prop_assert_eq!(of(&all, &numbers), merged(&all, parts));
        let floats = (Avg::of(|n: &i64| *n), Variance::population(|n: &i64| *n));
        let ((mean, variance), (mean_of_parts, variance_of_parts)) = (of(&floats, &numbers), merged(&floats, parts));
        for (whole, parts) in [(mean, mean_of_parts), (variance, variance_of_parts)] {
            prop_assert!((whole.unwrap_or(0.0) - parts.unwrap_or(0.0)).abs() < 1e-6);
        }
    }
}
