import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.atomic.AtomicLongArray;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.functions.source.legacy.RichParallelSourceFunction;
import org.apache.flink.util.Collector;

/**
 * The keyed state of benches/larger_than_memory.rs in Flink: source, exchange by key, a value of a count and a payload that is
 * read, changed and written, and an output that is dropped.
 *
 * <pre>FlinkState KEYS PAYLOAD_BYTES DIRECTORY MANAGED_MB CHECKPOINT_MS WARM_UP_S MEASURE_S</pre>
 *
 * First all keys come once, then uniform keys, then Zipf ones; prints one JSON object on stdout.
 */
public final class FlinkState {
    private static final int PARALLELISM = 2;
    /** Records that the source emits per hold of the checkpoint lock. */
    private static final int BURST = 64;

    /** What the sources make of their numbers now. All of it is one process, so a static tells them. */
    private static volatile Phase phase = Phase.FILL;

    /** Records seen per subtask, a cache line apart. */
    private static final AtomicLongArray seen = new AtomicLongArray(PARALLELISM * 16);

    private static volatile ZipfKeys zipf;

    private enum Phase {
        FILL,
        UNIFORM,
        ZIPF
    }

    public static void main(String[] arguments) throws Exception {
        long keys = Long.parseLong(arguments[0]);
        int payload = Integer.parseInt(arguments[1]);
        Path directory = Path.of(arguments[2]);
        String managed = arguments[3] + "m";
        long checkpointMs = Long.parseLong(arguments[4]);
        long warmUpSeconds = Long.parseLong(arguments[5]);
        long measureSeconds = Long.parseLong(arguments[6]);
        zipf = new ZipfKeys(keys);

        StreamExecutionEnvironment env =
                StreamExecutionEnvironment.createLocalEnvironment(PARALLELISM, options(directory, managed, checkpointMs));
        env.addSource(new Numbers(keys), "numbers", Types.LONG)
                .keyBy(key -> key, Types.LONG)
                .process(new Hold(payload))
                .sinkTo(new DiscardingSink<>());
        JobClient job = env.executeAsync("larger than memory");

        long begun = System.nanoTime();
        while (total() < keys) {
            alive(job);
            Thread.sleep(5);
        }
        StringBuilder answer = new StringBuilder("{\"fill_per_second\":").append(keys * 1e9 / (System.nanoTime() - begun));
        for (Phase next : List.of(Phase.UNIFORM, Phase.ZIPF)) {
            phase = next;
            Thread.sleep(warmUpSeconds * 1000);
            long from = System.nanoTime();
            long before = total();
            Thread.sleep(measureSeconds * 1000);
            alive(job);
            double seconds = (System.nanoTime() - from) / 1e9;
            answer.append(",\"").append(next.name().toLowerCase()).append("_per_second\":").append((total() - before) / seconds);
        }
        long checkpoints;
        try (var files = Files.walk(directory.resolve("checkpoints"), 2)) {
            // Only the newest is kept; its number tells how many there were.
            checkpoints = files.map(path -> path.getFileName().toString())
                    .filter(name -> name.startsWith("chk-"))
                    .mapToLong(name -> Long.parseLong(name.substring(4)))
                    .max()
                    .orElse(0);
        }
        System.out.println(answer.append(",\"checkpoints\":").append(checkpoints).append('}'));
        System.out.flush();
        // Nothing of it is wanted any more.
        Runtime.getRuntime().halt(0);
    }

    /** Flink's own recommendations for state that is larger than its memory; everything else is the default. */
    private static Configuration options(Path directory, String managed, long checkpointMs) {
        Configuration options = new Configuration();
        options.setString("pipeline.object-reuse", "true");
        options.setString("pipeline.generic-types", "false");
        options.setString("taskmanager.numberOfTaskSlots", String.valueOf(PARALLELISM));
        // Memory: what both slots' RocksDB share for block cache and memtables (state.backend.rocksdb.memory.managed is on by
        // default), and as few network buffers as one exchange of two subtasks needs.
        options.setString("taskmanager.memory.managed.size", managed);
        options.setString("taskmanager.memory.network.min", "8m");
        options.setString("taskmanager.memory.network.max", "8m");
        options.setString("state.backend.type", "rocksdb");
        options.setString("state.backend.rocksdb.localdir", directory.resolve("rocksdb").toString());
        // "Large state" and "tuning RocksDB" in its documentation: incremental checkpoints, options for flash, bloom filters, more
        // than the default of background threads, and index and filters in partitions, since as a whole they do not fit into
        // the memory beside the blocks.
        options.setString("execution.checkpointing.incremental", "true");
        options.setString("state.backend.rocksdb.predefined-options", "FLASH_SSD_OPTIMIZED");
        options.setString("state.backend.rocksdb.use-bloom-filter", "true");
        options.setString("state.backend.rocksdb.thread.num", "4");
        options.setString("state.backend.rocksdb.memory.partitioned-index-filters", "true");
        options.setString("execution.checkpointing.interval", checkpointMs + " ms");
        options.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
        options.setString("execution.checkpointing.dir", directory.resolve("checkpoints").toUri().toString());
        options.setString("restart-strategy.type", "none");
        return options;
    }

    private static long total() {
        long sum = 0;
        for (int subtask = 0; subtask < PARALLELISM; subtask++) {
            sum += seen.get(subtask * 16);
        }
        return sum;
    }

    private static void alive(JobClient job) throws Exception {
        if (job.getJobStatus().get().isGloballyTerminalState()) {
            job.getJobExecutionResult().get(); // says why
            throw new IOException("the job has ended");
        }
    }

    /** Spreads a number over 64 bits; as in benches/larger_than_memory.rs. */
    private static long mix(long number) {
        long mixed = number * 0x9E3779B97F4A7C15L;
        mixed = (mixed ^ (mixed >>> 32)) * 0xD6E8FEB86659FD93L;
        return mixed ^ (mixed >>> 32);
    }

    /** A key of `keys`, all of them alike; as in benches/larger_than_memory.rs. */
    private static long uniform(long mixed, long keys) {
        return ((mixed >>> 32) * keys) >>> 32;
    }

    /** Zipf's law with exponent 0.99: Gray et al., Quickly generating billion-record synthetic databases, 1994, as in YCSB. */
    private static final class ZipfKeys {
        private static final double THETA = 0.99;
        private final long keys;
        private final double zeta;
        private final double eta;

        ZipfKeys(long keys) {
            this.keys = keys;
            double sum = 0;
            for (long rank = 1; rank <= keys; rank++) {
                sum += Math.pow(rank, -THETA);
            }
            this.zeta = sum;
            double two = 1 + Math.pow(2, -THETA);
            this.eta = (1 - Math.pow(2.0 / keys, 1 - THETA)) / (1 - two / zeta);
        }

        long key(long mixed) {
            double share = (mixed >>> 11) * 0x1.0p-53;
            double scaled = share * zeta;
            long rank;
            if (scaled < 1) {
                rank = 0;
            } else if (scaled < 1 + Math.pow(0.5, THETA)) {
                rank = 1;
            } else {
                rank = Math.min((long) (keys * Math.pow(eta * share - eta + 1, 1 / (1 - THETA))), keys - 1);
            }
            // The popular ones are not neighbours.
            return uniform(mix(rank), keys);
        }
    }

    /** Subtask i has the numbers i, i + 2, i + 4 ...; the first KEYS of all are all keys. */
    private static final class Numbers extends RichParallelSourceFunction<Long> implements CheckpointedFunction {
        private final long keys;
        private volatile boolean running = true;
        private long next = -1;
        private transient ListState<Long> saved;

        Numbers(long keys) {
            this.keys = keys;
        }

        @Override
        public void run(SourceContext<Long> out) throws Exception {
            int step = getRuntimeContext().getTaskInfo().getNumberOfParallelSubtasks();
            if (next < 0) {
                next = getRuntimeContext().getTaskInfo().getIndexOfThisSubtask();
            }
            while (running) {
                // Between the last key and the first phase there is nothing to do.
                if (next >= keys && phase == Phase.FILL) {
                    Thread.sleep(1);
                    continue;
                }
                synchronized (out.getCheckpointLock()) {
                    for (int count = 0; count < BURST; count++) {
                        if (next >= keys && phase == Phase.FILL) {
                            break;
                        }
                        out.collect(key(next));
                        next += step;
                    }
                }
            }
        }

        private long key(long number) {
            if (number < keys) {
                return number;
            }
            long mixed = mix(number);
            return phase == Phase.ZIPF ? zipf.key(mixed) : uniform(mixed, keys);
        }

        @Override
        public void cancel() {
            running = false;
        }

        @Override
        public void snapshotState(FunctionSnapshotContext context) throws Exception {
            saved.update(List.of(next));
        }

        @Override
        public void initializeState(FunctionInitializationContext context) throws Exception {
            saved = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("next", Types.LONG));
            for (long number : saved.get()) {
                next = number;
            }
        }
    }

    /** Counts per key beside a payload; the value is read, changed and written. */
    private static final class Hold extends KeyedProcessFunction<Long, Long, Tuple2<Long, Long>> {
        private static final byte[] LETTERS =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".getBytes();
        private final int payload;
        private transient ValueState<Tuple2<Long, byte[]>> held;
        private transient Tuple2<Long, Long> counted;
        private transient int mine;

        Hold(int payload) {
            this.payload = payload;
        }

        @Override
        public void open(OpenContext context) {
            // A tuple of primitives: no Kryo, no reflection per record.
            var type = TypeInformation.of(new TypeHint<Tuple2<Long, byte[]>>() {});
            held = getRuntimeContext().getState(new ValueStateDescriptor<>("held", type));
            counted = Tuple2.of(0L, 0L);
            mine = getRuntimeContext().getTaskInfo().getIndexOfThisSubtask() * 16;
        }

        @Override
        public void processElement(Long key, Context context, Collector<Tuple2<Long, Long>> out) throws Exception {
            Tuple2<Long, byte[]> value = held.value();
            if (value == null) {
                value = Tuple2.of(0L, payload(key));
            }
            value.f0 += 1;
            held.update(value);
            counted.f0 = key;
            counted.f1 = value.f0;
            out.collect(counted);
            seen.lazySet(mine, seen.get(mine) + 1);
        }

        /** Letters that do not compress well; as in benches/larger_than_memory.rs. */
        private byte[] payload(long key) {
            byte[] letters = new byte[payload];
            long mixed = 0;
            for (int at = 0; at < payload; at++) {
                if (at % 10 == 0) {
                    mixed = mix(key * 1024 + at / 10);
                }
                letters[at] = LETTERS[(int) (mixed & 63)];
                mixed >>>= 6;
            }
            return letters;
        }
    }
}
