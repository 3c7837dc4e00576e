# Each recipe is one line that a person could type; CI runs scripts/check.sh.

check:
    scripts/check.sh
test:
    cargo test
run:
    cargo run --release
sim seed="0":
    SIM_SEED={{seed}} cargo test -p dataplane --test simulation -- --nocapture
fuzz seconds="60" *targets="":
    scripts/fuzz-smoke.sh {{seconds}} {{targets}}
loom:
    RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release -p dataplane --test loom
bench-setup *args="":
    cargo run --release -p bench -- setup {{args}}
compare *args="":
    cargo run --release -p bench -- compare {{args}}
scale *args="":
    cargo run --release -p bench -- scale {{args}}
report *args="":
    cargo run --release -p bench -- report {{args}}
docs:
    UPDATE_DOCS=1 cargo test -q -p control manual
