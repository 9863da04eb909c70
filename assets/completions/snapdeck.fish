# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_snapdeck_global_optspecs
    string join \n read-only plain json host= v/verbose config= uri= bucket-name= prefix= endpoint= region= h/help V/version
end

function __fish_snapdeck_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_snapdeck_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_snapdeck_using_subcommand
    set -l cmd (__fish_snapdeck_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c snapdeck -n "__fish_snapdeck_needs_command" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l read-only -d 'Disable all actions that change hosts or the bucket'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l plain -d 'Plain text for screen readers and simple terminals: no borders or graphs, ASCII only'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -s V -l version -d 'Print version'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "sandboxes" -d 'List sandboxes'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "snapshots" -d 'List the snapshots on the hosts'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "objects" -d 'List the snapshots in the bucket'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "sandbox" -d 'Create, run and destroy sandboxes'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "create" -d 'Create a snapshot of a sandbox in any state and upload it; pauses a running guest briefly'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "push" -d 'Upload the disk of a stopped or paused sandbox as a snapshot'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "pull" -d 'Download a snapshot from the bucket to a host, or to several at once'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "upload" -d 'Upload a snapshot of a host to the bucket, under its own name'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "copy" -d 'Copy a snapshot of one host to others, without the bucket'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "verify" -d 'Read a snapshot and check every block; exit code 1 if one is bad'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "adopt" -d 'Record the digests of a snapshot that snapdeck has not written'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "remove" -d 'Remove a snapshot from a host, from the bucket, or both'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "note" -d 'Show or edit a snapshot\'s note and labels'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "pin" -d 'Pin a snapshot: it is neither removed, pruned nor overwritten'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "unpin" -d 'Unpin a snapshot'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "prune" -d 'Remove old or unused snapshots and leftovers of interrupted jobs'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "exists" -d 'Check whether a snapshot is on the host; exit code 0 if it is, 3 if not'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "info" -d 'Show details of a snapshot on the host and in the bucket'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "manifest" -d 'Print the manifest of a snapshot: lineage, digests of its blocks, annotations'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "serve" -d 'Serve the HTTP API of one host until SIGTERM or Ctrl-C'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "init" -d 'Ask for hosts and bucket, check them, and write a settings file'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "doctor" -d 'Check hosts and bucket; print a fix for each problem'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "config" -d 'Print the effective settings and the origin of each, secrets masked'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "demo" -d 'Run the console against a throwaway demo environment'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l all -d 'Also list domains that snapdeck does not manage'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l partial -d 'List instead the partial files of interrupted and running pulls'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "new" -d 'Create a sandbox from a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "start" -d 'Start sandboxes; saved ones resume from their saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "stop" -d 'Ask guests to shut down (guest agent or power button) and wait'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "restart" -d 'Ask guests to shut down and wait, then start the sandboxes again'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "reset" -d 'Reset sandboxes at once, as by a reset button: unwritten data is lost'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "pause" -d 'Pause running sandboxes; their memory stays in host RAM'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "resume" -d 'Resume paused or suspended sandboxes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "save" -d 'Save sandboxes: write their memory to the host\'s disk and stop them'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "restore" -d 'Restore saved sandboxes from their saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "drop-saved" -d 'Discard the saved state of sandboxes, as after a power cut'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "autostart" -d 'Choose whether sandboxes start when their host starts'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "set" -d 'Change virtual CPUs and memory of sandboxes that are shut off'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "rename" -d 'Rename a sandbox that is shut off; its files keep their names'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "clone" -d 'Create a sandbox with the settings and a copy of the disk of another'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "destroy" -d 'Destroy sandboxes with disk, UEFI variables and saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "xml" -d 'Print the domain XML of a sandbox as libvirt has it'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "show" -d 'Show details of a sandbox and its disk chain'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop restart reset pause resume save restore drop-saved autostart set rename clone destroy xml show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l cpus -d 'Virtual CPUs [default: cpus of the settings]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l memory -d 'Memory, such as 4G or 512M [default: memory_mib of the settings]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l storage -d 'Size of its disk, such as 50G [default: the snapshot\'s]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l pull -d 'Pull the snapshot first if the host has no valid copy'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l start -d 'Start it after creation'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l timeout -d 'Seconds to wait for the guest [default: stop_timeout_secs of the settings]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l force-after -d 'Force off a guest that has not stopped after this many seconds' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l force -d 'Force off at once: unwritten data is lost'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l timeout -d 'Seconds to wait for the guest [default: stop_timeout_secs of the settings]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l force-after -d 'Force off a guest that has not stopped after this many seconds' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restart" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from reset" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from autostart" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l cpus -d 'Virtual CPUs' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l memory -d 'Memory, such as 4G or 512M' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from rename" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l start -d 'Start it after creation'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from clone" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l yes -d 'Do not ask for confirmation; required without a terminal'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from xml" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "new" -d 'Create a sandbox from a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "start" -d 'Start sandboxes; saved ones resume from their saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "stop" -d 'Ask guests to shut down (guest agent or power button) and wait'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "restart" -d 'Ask guests to shut down and wait, then start the sandboxes again'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "reset" -d 'Reset sandboxes at once, as by a reset button: unwritten data is lost'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "pause" -d 'Pause running sandboxes; their memory stays in host RAM'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "resume" -d 'Resume paused or suspended sandboxes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "save" -d 'Save sandboxes: write their memory to the host\'s disk and stop them'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "restore" -d 'Restore saved sandboxes from their saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "drop-saved" -d 'Discard the saved state of sandboxes, as after a power cut'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "autostart" -d 'Choose whether sandboxes start when their host starts'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "set" -d 'Change virtual CPUs and memory of sandboxes that are shut off'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "rename" -d 'Rename a sandbox that is shut off; its files keep their names'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "clone" -d 'Create a sandbox with the settings and a copy of the disk of another'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "destroy" -d 'Destroy sandboxes with disk, UEFI variables and saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "xml" -d 'Print the domain XML of a sandbox as libvirt has it'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show details of a sandbox and its disk chain'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l live -d 'Do not pause the guest; the image may be inconsistent'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l overwrite -d 'Replace an object of that name'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l compact -d 'Rewrite the whole image without deleted data'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l overwrite -d 'Replace an object of that name'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l compact -d 'Rewrite the whole image without deleted data'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l plan -d 'Dry run: show what would be copied and uploaded, and why'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l all-hosts -d 'Pull to every configured host'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l overwrite -d 'Download again even where a valid copy exists'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l overwrite -d 'Replace an object of that name'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand upload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l from -d 'The host that has it' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l to -d 'The hosts that receive it, separated by commas' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l overwrite -d 'Copy again even where a valid copy exists'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand copy" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l bucket -d 'Verify the object in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l local -d 'Verify the snapshot on the host (the default)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l repair -d 'Download bad blocks of the host\'s snapshot from the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l all -d 'Adopt every snapshot without a manifest, on all hosts or those given with --host'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l bucket -d 'Adopt the object in the bucket: it is downloaded once and not kept'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand adopt" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l local -d 'Remove it from the host'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l bucket -d 'Remove it from the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l label -d 'Set a label' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l remove-label -d 'Remove a label' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l local -d 'Only on the hosts'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l bucket -d 'Only in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l local -d 'Only on the hosts'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l bucket -d 'Only in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l local -d 'Only on the hosts'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l bucket -d 'Only in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l keep -d 'Keep the newest N versions of each snapshot, per host and in the bucket. app-v1.0, app-v1.1 and app-2026-01-31 are versions of app' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l older-than -d 'Remove only snapshots created longer ago than this: 12h, 30d, 8w' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l partial -d 'Remove the partial pull of this snapshot on the hosts, whatever its age' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l unused -d 'Remove only snapshots that no sandbox on any configured host is based on'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l leftovers -d 'Remove leftovers of interrupted jobs older than a day: uploads, partial pulls, temporary directories. Those of other installations of snapdeck are only listed'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l foreign -d 'Remove also leftovers that another installation created, or one whose state directory was lost'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l dry-run -d 'Dry run: only show what would be removed'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l yes -d 'Do not ask for confirmation; required without a terminal'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l local -d 'Only on the hosts; implied by --host'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l bucket -d 'Only in the bucket; with --host also on that host'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l bucket -d 'That of the object in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand manifest" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l listen -d 'Listen on this address' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l token-file -d 'File with the bearer token of callers [env: SNAPDECK_API_TOKEN, the token itself]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l tls-cert -d 'Use TLS with this certificate chain (PEM)' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l tls-key -d 'The certificate\'s private key (PEM)' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l insecure-no-auth -d 'Serve every caller on a loopback address, without a token'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l public-metrics -d 'Serve GET /metrics without a token'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l snapshots-dir -d 'Directory of the snapshots on each host' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l sandboxes-dir -d 'Directory of the sandboxes on each host' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l owner -d 'User and group of QEMU on the hosts' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l profile -d 'AWS profile with the keys of the bucket [env: AWS_PROFILE]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l yes -d 'Do not ask; write what is given and proposed'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l print -d 'Do not ask; print the file instead of writing it'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l host -d 'Work on this host; required where several are configured. Repeat it for listings, pull and doctor' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l prefix -d 'Key prefix of all snapshots in the bucket' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l read-only -d 'Disable all actions that change hosts or the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l plain -d 'Plain text for screen readers and simple terminals: no borders or graphs, ASCII only'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -s v -l verbose -d 'Log more to stderr; -vv for debug output'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "sandboxes" -d 'List sandboxes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "snapshots" -d 'List the snapshots on the hosts'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "objects" -d 'List the snapshots in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "sandbox" -d 'Create, run and destroy sandboxes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "create" -d 'Create a snapshot of a sandbox in any state and upload it; pauses a running guest briefly'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "push" -d 'Upload the disk of a stopped or paused sandbox as a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "pull" -d 'Download a snapshot from the bucket to a host, or to several at once'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "upload" -d 'Upload a snapshot of a host to the bucket, under its own name'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "copy" -d 'Copy a snapshot of one host to others, without the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "verify" -d 'Read a snapshot and check every block; exit code 1 if one is bad'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "adopt" -d 'Record the digests of a snapshot that snapdeck has not written'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "remove" -d 'Remove a snapshot from a host, from the bucket, or both'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "note" -d 'Show or edit a snapshot\'s note and labels'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "pin" -d 'Pin a snapshot: it is neither removed, pruned nor overwritten'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "unpin" -d 'Unpin a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "prune" -d 'Remove old or unused snapshots and leftovers of interrupted jobs'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "exists" -d 'Check whether a snapshot is on the host; exit code 0 if it is, 3 if not'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "info" -d 'Show details of a snapshot on the host and in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "manifest" -d 'Print the manifest of a snapshot: lineage, digests of its blocks, annotations'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "serve" -d 'Serve the HTTP API of one host until SIGTERM or Ctrl-C'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "init" -d 'Ask for hosts and bucket, check them, and write a settings file'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "doctor" -d 'Check hosts and bucket; print a fix for each problem'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "config" -d 'Print the effective settings and the origin of each, secrets masked'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "demo" -d 'Run the console against a throwaway demo environment'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull upload copy verify adopt remove note pin unpin prune exists info manifest serve init doctor config demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "new" -d 'Create a sandbox from a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "start" -d 'Start sandboxes; saved ones resume from their saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "stop" -d 'Ask guests to shut down (guest agent or power button) and wait'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "restart" -d 'Ask guests to shut down and wait, then start the sandboxes again'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "reset" -d 'Reset sandboxes at once, as by a reset button: unwritten data is lost'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "pause" -d 'Pause running sandboxes; their memory stays in host RAM'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "resume" -d 'Resume paused or suspended sandboxes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "save" -d 'Save sandboxes: write their memory to the host\'s disk and stop them'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "restore" -d 'Restore saved sandboxes from their saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "drop-saved" -d 'Discard the saved state of sandboxes, as after a power cut'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "autostart" -d 'Choose whether sandboxes start when their host starts'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "set" -d 'Change virtual CPUs and memory of sandboxes that are shut off'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "rename" -d 'Rename a sandbox that is shut off; its files keep their names'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "clone" -d 'Create a sandbox with the settings and a copy of the disk of another'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "destroy" -d 'Destroy sandboxes with disk, UEFI variables and saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "xml" -d 'Print the domain XML of a sandbox as libvirt has it'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "show" -d 'Show details of a sandbox and its disk chain'
