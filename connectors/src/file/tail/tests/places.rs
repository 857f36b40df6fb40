//! Where reading begins.

use super::*;
use crate::file::tail::place::{FilePlace, Place};
use crate::file::tail::{DataLoss, TailError, TailStart};

#[test]
fn waits_for_a_log_that_is_not_there_yet() {
    for start in [TailStart::Beginning, TailStart::End] {
        let mut bench = Bench::new(|source| source.start(start));
        bench.assert_reads([]);
        // The option counts once: what comes now was written behind the end of nothing.
        bench.stop();
        bench.write("app.log", "1\n");
        bench.assert_reads(["1"]);
    }
}

#[test]
fn begins_where_it_is_told_and_only_then() {
    let mut bench = Bench::new(|source| source.start(TailStart::End));
    bench.write("app.log.1", "before\n");
    bench.write("app.log", format!("one\n{}", "x".repeat(100_000)));
    bench.assert_reads([]);
    bench.stop();
    // The line that was being written has its end now.
    bench.write("app.log", "x\ntwo\n");
    assert_eq!(bench.read().unwrap(), ["x".repeat(100_001), "two".to_owned()]);
    bench.stop();
    bench.write("app.log", "three\n");
    bench.assert_reads(["three"]);

    let mut bench = Bench::new(|source| source.start(TailStart::End));
    bench.write("app.log", "begun");
    bench.assert_reads([]);
    bench.write("app.log", "\n");
    bench.assert_reads(["begun"]);
}

#[test]
fn the_bytes_say_which_file_it_is_and_not_the_inode() {
    let mut bench = plain();
    bench.write("app.log", "1\n2\n");
    bench.assert_reads(["1", "2"]);
    bench.stop();
    let Some(Place::In { current, .. }) = Place::read(bench.position.as_ref().unwrap()) else { panic!() };
    bench.rename("app.log", "app.log.1");
    bench.write("app.log.1", "3\n");
    bench.write("app.log", "4\n");
    let other = Followed::open(&bench.path("app.log")).unwrap().unwrap().id.inode;
    // The file that bears the log's name has got the inode of the one that was read.
    let position = Place::In { current: FilePlace { inode: other, ..current }, previous: None }.position();
    bench.position = Some(position);
    bench.assert_reads(["3", "4"]);
}

#[test]
fn a_file_that_is_gone_fails_the_attempt_unless_that_is_to_be_borne() {
    for (policy, is_there) in
        [(DataLoss::Fail, true), (DataLoss::Fail, false), (DataLoss::Continue, true), (DataLoss::Continue, false)]
    {
        let mut bench = Bench::new(|source| source.on_data_loss(policy));
        bench.write("app.log", "1\n2\n");
        bench.assert_reads(["1", "2"]);
        bench.stop();
        bench.write("app.log", "3\n");
        bench.rename("app.log", "elsewhere");
        if is_there {
            bench.write("app.log", "4\n");
        }
        if policy == DataLoss::Continue {
            assert_eq!(bench.read().unwrap(), if is_there { vec!["4"] } else { vec![] });
            assert_eq!(bench.counts().lost_files, 1);
            continue;
        }
        let text = bench.refusal();
        let what = if is_there { "it was rotated, and the file that was read is gone" } else { "it is gone" };
        assert!(text.contains(what) && text.contains("at byte 4 of") && text.contains("bring"), "{text}");
        bench.rename("elsewhere", "app.log.1");
        assert_eq!(bench.read().unwrap(), if is_there { vec!["3", "4"] } else { vec!["3"] });
    }
}

#[test]
fn a_log_that_was_cut_off_while_nobody_looked_is_a_loss_too() {
    let mut bench = plain();
    bench.write("app.log", "1\n2\n");
    bench.assert_reads(["1", "2"]);
    bench.stop();
    bench.truncate("app.log");
    bench.write("app.log", "3\n4\n5\n");
    let text = bench.refusal();
    assert!(text.contains("it was cut off or overwritten"), "{text}");
    bench.source = bench.source.on_data_loss(DataLoss::Continue);
    bench.assert_reads(["3", "4", "5"]);
    assert_eq!((bench.counts().lost_files, bench.counts().truncations), (1, 0));
}

#[test]
fn a_compressed_file_in_between_is_named() {
    for policy in [DataLoss::Fail, DataLoss::Continue] {
        let mut bench = Bench::new(|source| source.on_data_loss(policy));
        bench.write("app.log", "1\n");
        bench.assert_reads(["1"]);
        bench.stop();
        bench.rename("app.log", "app.log.3");
        bench.write("app.log.3", "2\n");
        // Being compressed in this moment: both are there.
        bench.write("app.log.3.gz", "\x1f\u{8b}");
        bench.write("app.log.2.gz", "\x1f\u{8b}");
        bench.write("app.log.1", "5\n");
        bench.write("app.log.1.gz", "\x1f\u{8b}");
        bench.write("app.log", "6\n");
        if policy == DataLoss::Continue {
            bench.assert_reads(["2", "5", "6"]);
            assert_eq!(bench.counts().lost_files, 1);
            continue;
        }
        let error = bench.read().unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(TailError::Compressed { path }) if path.ends_with("app.log.2.gz")));
        bench.stop();
        bench.rename("app.log.2.gz", "app.log.2");
        bench.truncate("app.log.2");
        bench.write("app.log.2", "3\n4\n");
        // The batch that failed was none, so what came before it was read.
        bench.assert_reads(["3", "4", "5", "6"]);
    }
}

#[test]
fn refuses_the_position_of_another_source_and_paths_that_are_none() {
    let mut bench = plain();
    bench.position = Some(Position::from_u64(4));
    assert!(bench.refusal().contains("the saved position 4 is none of a followed log"));

    let refusal = |source: TailLines| match source.splits() {
        Err(error) => error.to_string(),
        Ok(splits) => source.reader(&splits[0], None).err().unwrap().to_string(),
    };
    let at = |name: &str| TailLines::at(bench.path(name));
    let text = refusal(at("none/app.log"));
    assert!(text.contains("its directory does not exist; create it"), "{text}");
    bench.write("file", "");
    assert!(refusal(at("file/app.log")).contains("is a file; correct the path"));
    assert!(refusal(TailLines::at(bench.directory.path())).contains("a directory: name a file in it"));
    assert!(refusal(TailLines::at("/dev/null")).contains("a device, which cannot be read again"));
    assert!(refusal(TailLines::at("..")).contains("its name is no UTF-8 text"));
    assert!(refusal(at("none.log").must_exist()).contains("there is no such file"));
    assert!(refusal(at("app.log").max_line_bytes(0)).contains("give at least 1"));
    assert!(refusal(at("app.log").poll_interval(Duration::from_millis(51))).contains("give at most 50 ms"));
    // A pipeline that has read it before waits for it between two files.
    bench.write("app.log", "1\n");
    bench.position = None;
    bench.source = bench.source.must_exist();
    bench.assert_reads(["1"]);
    bench.stop();
    bench.rename("app.log", "app.log.1");
    bench.assert_reads([]);
}

#[test]
fn a_file_of_which_nothing_was_read_is_known_by_its_inode_and_when_it_was_made() {
    let mut bench = plain();
    bench.write("app.log", "begun");
    bench.assert_reads([]);
    bench.stop();
    bench.write("app.log", "\n");
    bench.rename("app.log", "app.log.1");
    bench.write("app.log", "2\n");
    bench.assert_reads(["begun", "2"]);
}

#[test]
fn a_new_file_that_is_copied_and_cut_off_before_its_first_line_was_read_is_read_in_its_copy() {
    for is_running in [true, false] {
        let mut bench = plain();
        bench.write("app.log", "1\n");
        bench.assert_reads(["1"]);
        bench.rename("app.log", "app.log.1");
        bench.write("app.log", "");
        bench.assert_reads([]);
        if !is_running {
            bench.stop();
        }
        bench.rename("app.log.1", "app.log.2");
        bench.write("app.log", "2\n");
        bench.copy("app.log", "app.log.1");
        bench.truncate("app.log");
        bench.write("app.log", "3\n");
        bench.assert_reads(["2", "3"]);
    }
}
