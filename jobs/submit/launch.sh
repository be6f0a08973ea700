# The profile has a launcher, which may start Python in a container without Slurm's commands. So this shell stays. It
# passes signals on, runs the scontrol commands that the task requests, and ends as the task ended. Both go through
# pipes in the run's folder (jobs/slurm/commands.py, jobs/node/shell_signals.py).
answer() { # FOLDER: run the requested commands, one after another, while this job's shell lives
    trap '' USR2 TERM # for scontrol too: Slurm may signal every process of the job, and the task needs answers then
    local words id verb code
    exec 3<>"$1/commands"
    while kill -0 $$ 2>/dev/null; do
        read -r -t 10 -u 3 -a words || continue
        id=${words[0]}
        for verb in "${words[@]:2}"; do [[ $verb == -* ]] || break; done
        [[ $id =~ ^[0-9a-f]+$ && ${words[1]} == scontrol && $verb =~ ^(show|requeue|update)$ ]] || continue
        code=0
        TZ=UTC SLURM_BITSTR_LEN=0 "${words[@]:1}" >"$1/$id.out" 2>"$1/$id.err" </dev/null || code=$?
        echo "$code" >"$1/$id.new" && mv "$1/$id.new" "$1/$id.code"
    done
}
launch() { # COMMAND...
    set +eu # the profile's `before` may have set them; then a signal, which interrupts wait, would end this shell
    # signal: has one interrupted this wait; stopping: has any come.
    local code task signal="" answering="" stopping="" folder=$EMBEDKIT_SLURM
    pass_on() { # not to the launcher: Slurm may end its helpers with the same signal, and srun ends its step on SIGTERM
        signal=$1 stopping=$1
        if [ -n "$answering" ]; then echo "$1" >&4; else kill -s "$1" "$task"; fi
    }
    rm -rf "$folder"
    if mkdir -m 700 "$folder" && mkfifo -m 600 "$folder/commands" "$folder/signals"; then
        exec 4<>"$folder/signals" # a signal waits here until the task reads it
        answer "$folder" 4>&- &
        answering=$!
        disown "$answering" # or the shell would report its end in the log
    fi
    (
        trap '' USR2 # until Python handles it, as without a launcher
        exec "$@" 4>&-
    ) &
    task=$!
    trap 'pass_on USR2' USR2
    trap 'pass_on TERM' TERM
    while :; do
        signal=""
        wait "$task"
        code=$?
        [ -n "$signal" ] && [ "$code" -gt 128 ] || break # a signal interrupts wait, and the task has not ended
    done
    if [ -n "$stopping" ] && [ "$code" -gt 128 ]; then
        # The signal has ended the launcher. A container may go on without it, and its task still needs answers.
        for _ in {1..20}; do sleep 1; done
    fi
    [ -z "$answering" ] || kill -s KILL "$answering"
    rm -rf "$folder"
    trap - USR2 TERM
    [ "$code" -le 192 ] || code=125 # Slurm would show Apptainer's 255 as 127:0, which means: not found
    [ "$code" -le 128 ] || kill -s "$((code - 128))" $$ # a launcher reports a signal as 128 + its number
    exit "$code"
}
