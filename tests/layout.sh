# Where an attachment lies in a storage on a file system, for the scripts that look there.

# record_path ROOT CLIENT ATTACHMENT: where its record lies.
record_path() {
    printf '%s/clients/%s/records/%019d' "$1" "$2" "$3"
}

# record_of ROOT CLIENT ATTACHMENT: its record, one line of JSON.
record_of() {
    head -n 1 "$(record_path "$@")"
}

# content_folder ROOT CLIENT ATTACHMENT: where its content lies, if that has objects of its own.
content_folder() {
    printf '%s/clients/%s/content/%019d' "$1" "$2" "$3"
}

# content_paths ROOT CLIENT ATTACHMENT: the objects of its content, in order, a line each. None if it lies behind the record.
content_paths() {
    record_of "$@" | jq -r --arg folder "$(content_folder "$@")" \
        '.content as $content | $content.segments[] | "\($folder)/\($content.upload_id).\(.number)"'
}

# content_of ROOT CLIENT ATTACHMENT: its bytes.
content_of() {
    local paths
    mapfile -t paths < <(content_paths "$@")
    if [ ${#paths[@]} -gt 0 ]; then cat "${paths[@]}"; else tail -n +2 "$(record_path "$@")"; fi
}
