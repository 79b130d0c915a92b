# shellcheck shell=bash
# Which folders of the host a container has to show, so that cetpick finds all files at their own paths. The wrappers
# source this. After `find_binds ARGUMENTS` these are in `binds`, as FOLDER:FOLDER:ro|rw; the working folder is `here`.
# Symbolic links are followed step by step, and so are the files that STAR files name.

declare -A mounts=() visited=()
declare -a binds=()
here=$(pwd -P)

absolute() { # PATH: sets `path`, from the root and without . and .., symbolic links as they are
    path=$1
    [[ $path == /* ]] || path=$here/$path
    case $path/ in *//* | */./* | */../*) path=$(realpath -ms -- "$path") ;; esac
}

show() { # ro|rw FOLDER
    case $2 in
    "$here"/*) return ;;
    /dev/shm/?*) ;;
    / | /bin | /dev | /dev/* | /etc | /lib | /lib64 | /opt | /opt/venv | /opt/venv/* | /proc | /proc/* | /sbin | \
        /sys | /sys/* | /usr | /usr/*)
        echo "cetpick: $2 is also a folder of the container: keep files and work in another one" >&2
        exit 2
        ;;
    esac
    [[ ${mounts[$2]-} == rw ]] || mounts[$2]=$1
}

lead() { # ro|rw PATH...: show the folders of paths, and of what symbolic links among them, or in them, lead to
    local mode=$1 depth=1 path folder link target from
    local -a paths links
    [[ $mode == ro ]] || depth=0
    shift
    while (($#)); do
        paths=() links=()
        for path; do
            absolute "$path"
            [[ -e $path && -z ${visited[$mode:$path]-} ]] || continue
            visited[$mode:$path]=1
            folder=$path
            [[ -d $path ]] || folder=${path%/*}
            case $folder in *.zarr/*) folder=${folder%%.zarr/*}.zarr ;; esac # a level is read with its store
            show "$mode" "${folder:-/}"
            paths+=("$path")
            # in the working folder, folders that are links are shown as such
            while [[ $folder == "$here"/* ]]; do
                [[ ! -L $folder ]] || paths+=("$folder")
                folder=${folder%/*}
            done
        done
        ((${#paths[@]})) || return 0
        # shellcheck disable=SC2016
        while IFS= read -rd '' link && IFS= read -rd '' target; do
            from=${link%/*}
            [[ $from/ != "$here"/* ]] || from=$(realpath -- "$from")
            [[ $target == /* ]] || target=$from/$target
            absolute "$target"
            # what is mounted at a path through links has no links in its path there, so .. is another folder
            [[ ! -e $link || $path -ef $link ]] ||
                echo "cetpick: the container cannot follow the link $link: name $(realpath -- "$link")" >&2
            links+=("$path")
        done < <(printf '%s\0' "${paths[@]}" |
            MAX=$depth xargs -0 sh -c 'find "$@" -maxdepth "$MAX" -type l -printf "%p\0%l\0"' find)
        set -- "${links[@]}"
    done
}

named_in() { # STAR: words in it that may be files; not images and tilt series, which cetpick does not read, nor TS_1/27
    # shellcheck disable=SC2016
    awk '
        function tell(word) {
            gsub(/^["\047]|["\047]$/, "", word)
            if (word ~ /\/|\.[A-Za-z]/ && !told[word]++) print word
        }
        function values(line,    n) { # of a line, to `value`: quotes are for blanks
            if (line !~ /["\047]/) return split(line, value)
            for (; match(line, /"[^"]*"|\047[^\047]*\047|[^ \t]+/); line = substr(line, RSTART + RLENGTH))
                value[++n] = substr(line, RSTART, RLENGTH)
            return n
        }
        { sub(/\r$/, "") }
        NF == 1 && /^(data_|loop_)/ { columns = 0; next }
        { n = values($0) }
        /^_/ { label[++columns] = $1; if (n > 1 && value[2] !~ /^#/) tell(value[2]); next }
        { for (i = 1; i <= n; i++) if (i > columns || label[i] !~ /Image|TiltSeries|ParticleName/) tell(value[i]) }
    ' "$1"
}

lead_star() { # STAR: show the files that it names, as seen from the working folder or one above the STAR file
    local path word folder
    local -a folders=("$here") found=()
    absolute "$1"
    [[ -f $path && -z ${visited[star:$path]-} ]] || return 0
    visited[star:$path]=1
    for folder in "${path%/*}" "$(dirname -- "$(realpath -- "$path")")"; do
        while [[ -n $folder ]]; do
            folders+=("$folder")
            folder=${folder%/*}
        done
    done
    # there may be a hundred thousand words: no process for each
    while IFS= read -r word; do
        if [[ $word == /* ]]; then
            found+=("$word")
        else
            for folder in "${folders[@]}"; do [[ ! -e $folder/$word ]] || found+=("$folder/$word"); done
        fi
    done < <(named_in "$path")
    ((${#found[@]})) || return 0
    lead ro "${found[@]}"
    for word in "${found[@]}"; do
        [[ ${word,,} != *.star ]] || lead_star "$word"
    done
}

lead_output() { # PATH that may not be there yet: show the folder that is there, for writing
    local path
    absolute "$1"
    while [[ ! -e ${path:-/} ]]; do path=${path%/*}; done
    lead rw "${path:-/}"
}

find_binds() { # ARGUMENTS of cetpick: sets `binds`
    local word value option='' path run convert_to='' results=''
    local -a inputs
    show rw "$here"
    IFS=: read -ra inputs <<<"${CETPICK_MOUNTS:-}"
    [[ ${1-} != convert ]] || convert_to=new
    # these write in a folder that they are given
    case ${1-} in collect | convert | repick | report | suggest | evaluate | doctor) results=yes ;; esac
    [[ " $* " != ' convert '*' --overwrite '* ]] || convert_to=any
    for word; do
        # -q, which has no value, may stand before another in one word
        while [[ $word == -q[[:alpha:]]* ]]; do word=-${word:2}; done
        value=$word
        case $word in
        --*=*) option=${word%%=*} value=${word#*=} ;;
        -[[:alpha:]]?*) option=${word:0:2} value=${word:2} ;;
        esac
        absolute "$value"
        if [[ $option =~ ^(-o|--o|--output|--report)$ || $convert_to == any || ($convert_to == new && ! -e $path) ]] ||
            [[ $results && -d $path && ! $option =~ ^(convert|-l|--labels|--truth|--tomogram|--to-tomogram)$ ]]; then
            lead_output "$value"
            # the tomograms of these results are read for pictures that are not there
            if [[ ${1-} == report && -d $path/records ]]; then
                while IFS= read -r run; do [[ $run == *[:,]* ]] || inputs+=("$run"); done \
                    < <(sed -n 's/^  "file": "\(\/[^"\\]*\)",$/\1/p' "$path"/records/*.json 2>/dev/null)
            fi
        else
            inputs+=("$value")
            [[ ${value,,} != *.star ]] || lead_star "$value"
            # curate takes the tomograms of picks from the results that lie there or, as for `suggest`, a folder above
            if [[ ${1-} == curate && -f $path ]]; then
                for run in "${path%/*/*}"/run{,.*of*}.json; do [[ ! -e $run ]] || inputs+=("${run%/*}"); done
            fi
        fi
        option=$word
    done
    [[ -z ${CETPICK_SCRATCH:-} ]] || lead_output "$CETPICK_SCRATCH"
    lead ro "${inputs[@]}"
    while IFS= read -rd '' path; do
        if [[ $path == *[:,$'\n']* ]]; then
            echo "cetpick: $path cannot be shown in a container: there is a colon, comma or line break in its name" >&2
            exit 2
        fi
        binds+=("$path:$path:${mounts[$path]}")
    done < <(printf '%s\0' "${!mounts[@]}" | sort -z)
}
