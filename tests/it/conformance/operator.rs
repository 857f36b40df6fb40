//! S-OP: other operators.

use millstream::operators::Stream;

use super::drive::{Event, Script, number, on, says};
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "OP", title: "Other operators", module: "operator", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-OP-01", "Sorting only in *complete* behind an aggregation, else E-OP-03").open("there is no sort"),
    row("S-OP-02", "A limit of 3 over 2 and 2 rows gives 3, also across a restart; in *update* E-OP-01")
        .open("there is no limit"),
    row("S-OP-03", "Each other operation that streams do not have is refused with its code")
        .not_applicable("none of these operations is there to be called"),
    row("S-OP-04", "Actions on streams are E-OP-07, a start without a stream E-OP-08").not_applicable(
        "a stream has no method that returns rows; a pipeline without a source is refused when it starts",
    ),
    row("S-OP-05", "A union of two sources has all rows; bounded input (E-OP-06) is a source like any other here")
        .passes("a_union_has_the_rows_of_both"),
    row("S-OP-06", "`map` and `filter`: columns added, rows and columns chosen, only rows that contain a text")
        .passes("rows_and_columns_are_added_and_chosen"),
    row("S-OP-07", "A line split into words gives each word").passes("a_line_is_split_into_its_words"),
];

#[test]
fn a_union_has_the_rows_of_both() {
    let script = Script::new([vec![number("a", 1, 1), number("a", 1, 2)], vec![number("a", 1, 3)]]);
    let script = script.and([vec![number("b", 1, 10)], vec![number("b", 1, 1), number("b", 1, 11)]]).on_disk();
    let numbers = |left: Stream<Event>, right: Stream<Event>| left.union(right).map(|event| event.number).erase();
    script.gives_of_two(numbers, [vec![1, 2, 10], vec![1, 3, 11]]);
}

#[test]
fn rows_and_columns_are_added_and_chosen() {
    let rows =
        [says("phone", 1, "stairsup"), says("phone", 2, "walk"), says("watch", 3, "stairsdown"), says("watch", 4, "")];
    let stairs = |events: Stream<Event>| {
        let with_column = events.map(|event| (event.says.contains("stairs"), event));
        let chosen = with_column.filter(|(stairs, event)| *stairs && !event.says.is_empty());
        chosen.map(|(stairs, event)| (event.says, stairs)).erase()
    };
    let row = |gt: &str| (gt.to_owned(), true);
    Script::new([rows.to_vec()]).gives(stairs, [vec![row("stairsup"), row("stairsdown")]]);
}

#[test]
fn a_line_is_split_into_its_words() {
    let words = |events: Stream<Event>| {
        let words = |event: Event| event.says.split(' ').map(str::to_owned).collect::<Vec<_>>();
        events.flat_map(words).erase()
    };
    let script = Script::new([vec![says("", 1, "a b a")], vec![on("", 2)]]);
    script.gives(words, [["a", "b", "a"].map(str::to_owned).to_vec(), vec![String::new()]]);
}
