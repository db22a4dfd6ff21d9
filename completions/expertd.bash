# bash completion for expertd, its programs, expertctl and what comes with them: what their --help names.
_expertd() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]} help words command=''
    COMPREPLY=()
    case $before in
    --config | --*-file | --*-dir | --*-path | -i | --input | -g | --grad-output | -o | --output | --key-file | --server-key)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --device) # those of the configuration that was named
        local config=''
        for ((i = 1; i < COMP_CWORD; i++)); do
            [[ ${COMP_WORDS[i]} != --config ]] || config=${COMP_WORDS[i + 1]/#\~/$HOME}
        done
        [[ -r $config ]] || return
        words=$(sed -n '/^devices:/,/^[a-z]/s/.*name: *"\{0,1\}\([A-Za-z0-9_-]*\).*/\1/p' "$config")
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
        return
        ;;
    esac
    if [[ ${program##*/} == expertd-alert ]] && ((COMP_CWORD > 1)); then # a command's words, whose own they are
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
    fi
    [[ ${program##*/} != expertd || $COMP_CWORD -lt 2 ]] || command=${COMP_WORDS[1]}
    help=$("$program" ${command:+"$command"} --help 2>/dev/null) || return
    if [[ $word == -* ]]; then
        words=$(grep -oE -- '--[a-z][a-z0-9_-]*' <<<"$help" | sort -u)
    elif [[ ${program##*/} == expertd && $COMP_CWORD -eq 1 ]]; then
        words=$(sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p' <<<"$help")
    elif [[ ${program##*/} == expertctl ]]; then
        words=$(sed -n '/^Commands:/,/^$/s/^  \([a-z-]\{1,\}\)\( .*\)\{0,1\}$/\1/p' <<<"$help")
    elif [[ ${program##*/} == expertd-alert ]]; then
        mapfile -t COMPREPLY < <(compgen -c -- "$word")
        return
    else
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _expertd expertd expertd-frontend expertd-runtime expertd-dht expertd-http expertctl expertd-alert expertd-convert-state-dict
