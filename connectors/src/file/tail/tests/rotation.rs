//! Logs that go on in other files.

use super::*;

#[test]
fn reads_the_old_file_to_its_end_and_then_the_new_one() {
    let mut bench = plain();
    bench.write("app.log", "1\n");
    let mut slow = bench.open("app.log");
    bench.assert_reads(["1"]);
    bench.write("app.log", "2\n");
    bench.rename("app.log", "app.log.1");
    slow.write_all(b"3\n").unwrap();
    bench.assert_reads(["2", "3"]);
    bench.write("app.log.1", "4\n");
    bench.write("app.log", "5\n");
    bench.assert_reads(["4", "5"]);
    // Whoever has the old file open may go on writing there.
    slow.write_all(b"6\n").unwrap();
    bench.write("app.log", "7\n");
    let mut lines = bench.read().unwrap();
    lines.sort();
    assert_eq!(lines, ["6", "7"]);
    bench.stop();
    slow.write_all(b"8\nhalf").unwrap();
    bench.assert_reads(["8"]);
    // Until the next rotation.
    bench.rename("app.log.1", "app.log.2");
    bench.rename("app.log", "app.log.1");
    bench.write("app.log", "9\n");
    bench.assert_reads(["9"]);
    let counts = bench.counts();
    assert_eq!((counts.lines, counts.rotations, counts.partial_lines), (9, 2, 1));
    assert_eq!((counts.truncations, counts.lost_files), (0, 0));
}

#[test]
fn an_old_file_that_is_deleted_is_let_go() {
    let mut bench = plain();
    bench.write("app.log", "1\n");
    bench.assert_reads(["1"]);
    bench.rename("app.log", "app.log.1");
    bench.write("app.log", "2\n");
    bench.assert_reads(["2"]);
    let with_both = bench.position.clone().unwrap().as_bytes().len();
    bench.write("app.log.1", "3\n");
    bench.remove("app.log.1");
    bench.assert_reads(["3"]);
    assert_eq!((with_both, bench.position.clone().unwrap().as_bytes().len()), (49, 25));
    bench.stop();
    bench.write("app.log", "4\n");
    bench.assert_reads(["4"]);
}

#[test]
fn a_rotation_may_remove_the_file_before_in_the_same_moment() {
    // The first line of a file comes and the file is rotated between two looks, whichever file it is the turn of.
    for looks in 1..=2 {
        let mut bench = plain();
        bench.write("app.log", "1\n");
        bench.assert_reads(["1"]);
        bench.rename("app.log", "app.log.1");
        bench.write("app.log", "");
        for _ in 0..looks {
            bench.assert_reads([]);
        }
        bench.write("app.log", "2\n");
        bench.rename("app.log", "app.log.1");
        bench.write("app.log", "3\n");
        bench.assert_reads(["2", "3"]);
    }
}

#[test]
fn a_rotated_file_and_the_next_may_begin_with_the_same_lines() {
    for is_running in [true, false] {
        let mut bench = that_has_read("# time host\n", is_running);
        bench.rename("app.log", "app.log.1");
        bench.write("app.log", "# time host\n1\n");
        bench.assert_reads(["# time host", "1"]);
    }
}

#[test]
fn several_rotations_pass_while_nobody_reads() {
    for (names, written) in [
        (["app.log.3", "app.log.2", "app.log.1"], "as logrotate does it"),
        (["app.log-20261125", "app.log-20261126", "app.log-20261126.1"], "by date"),
        (["app.2026-11-25.log", "app.2026-11-26.log", "app.2026-11-27.log"], "by date in the middle"),
    ] {
        for is_running in [false, true] {
            let mut bench = that_has_read("1\n", is_running);
            bench.write("app.log", "2\n");
            bench.rename("app.log", names[0]);
            bench.write("app.log.bak", "a copy that somebody made\n");
            bench.write("app.logger", "another log\n");
            bench.write(names[1], "3\n4\n5\n6\n");
            bench.write(names[2], "7\n");
            bench.write("app.log", "8\n");
            for (age, name) in names.iter().enumerate() {
                let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000 + age as u64);
                bench.open(name).set_modified(time).unwrap();
            }
            assert_eq!(bench.read().unwrap(), ["2", "3", "4", "5", "6", "7", "8"], "{written}, running: {is_running}");
            bench.stop();
            bench.assert_reads([]);
        }
    }
}

#[test]
fn a_log_that_is_copied_and_cut_off_is_read_on_in_its_copy() {
    for is_running in [true, false] {
        let mut bench = that_has_read("1\n2\n", is_running);
        bench.write("app.log", "3\n");
        bench.copy("app.log", "app.log.1");
        bench.truncate("app.log");
        bench.write("app.log", "4\n5\n6\n7\n");
        bench.rename("app.log.1", "app.log.2");
        bench.copy("app.log", "app.log.1");
        bench.truncate("app.log");
        bench.write("app.log", "8\n");
        bench.assert_reads(["3", "4", "5", "6", "7", "8"]);
        assert_eq!(bench.counts().truncations, 0);
    }
}

#[test]
fn a_log_that_is_copied_and_removed_is_read_on_in_its_copy() {
    for is_running in [true, false] {
        let mut bench = that_has_read("1\n", is_running);
        bench.write("app.log", "2\n");
        bench.copy("app.log", "app.log.1");
        // As if somebody copied both here from another machine, where more was written before the rotation.
        bench.write("app.log.1", "3\n");
        bench.remove("app.log");
        bench.write("app.log", "4\n");
        bench.assert_reads(["2", "3", "4"]);
        assert_eq!((bench.counts().truncations, bench.counts().lost_files), (0, 0));
    }
}

#[test]
fn a_log_that_is_replaced_by_a_longer_copy_of_itself_goes_on() {
    let mut bench = plain();
    bench.write("app.log", "1\n2\n");
    bench.assert_reads(["1", "2"]);
    for (line, is_running) in [("3", true), ("4", false)] {
        if !is_running {
            bench.stop();
        }
        bench.copy("app.log", ".new");
        bench.write(".new", format!("{line}\n"));
        bench.rename(".new", "app.log");
        bench.assert_reads([line]);
    }
    assert_eq!(bench.counts().rotations, 0);
}

#[test]
fn a_link_is_followed_and_so_is_its_change() {
    let mut bench = plain();
    fs::create_dir(bench.path("pod")).unwrap();
    bench.link("app.log", "pod/0.log");
    bench.write("pod/0.log", "1\n");
    bench.assert_reads(["1"]);
    bench.stop();
    bench.rename("pod/0.log", "pod/0.log.20261127-100000");
    bench.write("pod/0.log.20261127-100000", "2\n");
    bench.write("pod/0.log.20261127-110000", "3\n");
    bench.write("pod/0.log", "4\n");
    bench.assert_reads(["2", "3", "4"]);
    bench.write("pod/0.log", "5\n");
    bench.write("pod/1.log", "6\n");
    bench.remove("app.log");
    bench.link("app.log", "pod/1.log");
    bench.assert_reads(["5", "6"]);
}
