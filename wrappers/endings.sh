# shellcheck shell=bash
# What is to be done when a wrapper's process, which the container's engine takes over, has ended. The wrappers source this.

export CETPICK_JOB= # folder of RELION's job

is_relion_job() { # ARGUMENTS of cetpick-relion: sees to it that RELION hears of the end, also where no container begins
    while (($#)); do
        case $1 in
        --o) CETPICK_JOB=${2-} ;;
        --o=*) CETPICK_JOB=${1#*=} ;;
        esac
        shift
    done
    [[ -n $CETPICK_JOB ]] || return 0
    rm -f -- "$CETPICK_JOB"/RELION_JOB_EXIT_{SUCCESS,FAILURE,ABORTED}
    trap leave_marker EXIT
}

leave_marker() { # RELION takes a job to be running until one of these files is there
    local end
    [[ -n $CETPICK_JOB ]] || return 0
    for end in SUCCESS FAILURE ABORTED; do [[ ! -e $CETPICK_JOB/RELION_JOB_EXIT_$end ]] || return 0; done
    : >"$CETPICK_JOB/RELION_JOB_EXIT_FAILURE"
}
export -f leave_marker

after_end() { # COMMAND ARGUMENT...: run it when this process has ended, also by SIGKILL
    # shellcheck disable=SC2016
    setsid bash -c '{ tail --pid="$0" --follow /dev/null; "$@"; leave_marker; } >/dev/null 2>&1 &' $$ "$@" </dev/null
}
