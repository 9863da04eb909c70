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

complete -c snapdeck -n "__fish_snapdeck_needs_command" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l read-only -d 'The console changes nothing: it shows, and refuses everything else'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l plain -d 'Lines of plain text, for screen readers and poor terminals: no borders, no graphs, ASCII signs'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -s V -l version -d 'Print version'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "sandboxes" -d 'List sandboxes'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "snapshots" -d 'List the snapshots on the hosts'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "objects" -d 'List the snapshots in the bucket'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "sandbox" -d 'Make, run and destroy sandboxes'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "create" -d 'Cut a snapshot from a sandbox in any state and upload it; a running guest is paused for a moment'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "push" -d 'Upload the disk of a stopped or paused sandbox as a snapshot'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "pull" -d 'Download a snapshot from the bucket to a host, or to several at once'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "verify" -d 'Read a snapshot again and check every block of it; exit code 1 where one is bad'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "remove" -d 'Remove a snapshot from a host, from the bucket, or both'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "note" -d 'Tell what is said of a snapshot, or say it: a note, labels'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "pin" -d 'Keep a snapshot from remove and prune, wherever it is'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "unpin" -d 'Take the pin away'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "prune" -d 'Remove what is old or not used, and what was left behind'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "exists" -d 'Is a snapshot on the host? Exit code 0 where it is, 3 where it is not'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "info" -d 'Show what is known of a snapshot, on the host and in the bucket'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "serve" -d 'Offer the HTTP API of one host, until SIGTERM or Ctrl-C'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "doctor" -d 'Examine the hosts and the bucket: what an operation will need, and the command that mends what is wrong'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "config" -d 'Print the settings in force and where each came from, secrets masked'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "demo" -d 'Open the console on a small world of its own: needs no setup, touches nothing else'
complete -c snapdeck -n "__fish_snapdeck_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l all -d 'Show the hosts\' other guests, too, which snapdeck leaves alone'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandboxes" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand snapshots" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand objects" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "new" -d 'Make a sandbox on a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "start" -d 'Start sandboxes, saved ones where they were'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "stop" -d 'Ask guests to shut down, by their agent or the power button, and wait until they have'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "pause" -d 'Pause running sandboxes: their memory stays in the host\'s RAM'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "resume" -d 'Let paused or sleeping sandboxes go on'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "save" -d 'Write the memory of sandboxes to the host\'s disk and end their processes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "restore" -d 'Start saved sandboxes where they were'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "drop-saved" -d 'Forget the saved memory of sandboxes, as if their power had been cut'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "destroy" -d 'Remove sandboxes for good: disk, UEFI variables, saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "show" -d 'Show what is known of a sandbox, with the chain of its disk'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and not __fish_seen_subcommand_from new start stop pause resume save restore drop-saved destroy show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l cpus -d 'Virtual CPUs [default: cpus of the settings]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l memory -d 'Memory, such as 4G or 512M [default: memory_mib of the settings]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l storage -d 'Size of its disk, such as 50G [default: the snapshot\'s]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l pull -d 'Pull the snapshot first, where the host has no valid copy'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l start -d 'Start it, too'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from new" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l timeout -d 'How long a guest may take, in seconds [default: stop_timeout_secs of the settings]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l force-after -d 'Cut the power of a guest that has not stopped after that time, in seconds' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l force -d 'Cut the power at once: what a guest has not written is lost'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from resume" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from save" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from drop-saved" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l yes -d 'Do not ask; without a terminal it is needed'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from destroy" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "new" -d 'Make a sandbox on a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "start" -d 'Start sandboxes, saved ones where they were'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "stop" -d 'Ask guests to shut down, by their agent or the power button, and wait until they have'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "pause" -d 'Pause running sandboxes: their memory stays in the host\'s RAM'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "resume" -d 'Let paused or sleeping sandboxes go on'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "save" -d 'Write the memory of sandboxes to the host\'s disk and end their processes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "restore" -d 'Start saved sandboxes where they were'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "drop-saved" -d 'Forget the saved memory of sandboxes, as if their power had been cut'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "destroy" -d 'Remove sandboxes for good: disk, UEFI variables, saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show what is known of a sandbox, with the chain of its disk'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand sandbox; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l live -d 'Do not pause the guest: the image is only as consistent as after a power cut, or less'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l overwrite -d 'Replace an object of that name'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l compact -d 'Write the image anew, without what was deleted'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand create" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l overwrite -d 'Replace an object of that name'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l compact -d 'Write the image anew, without what was deleted'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l plan -d 'Say what would be copied and what uploaded, and why, and move nothing'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand push" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l all-hosts -d 'Pull it to every host of the settings'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l overwrite -d 'Fetch it again even where a valid copy is there'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pull" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l bucket -d 'The one in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l local -d 'The one on the host (so it is where nothing is said)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l repair -d 'Fetch bad blocks of the one on the host from the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand verify" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l local -d 'Remove it from the host'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l bucket -d 'Remove it from the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand remove" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l label -d 'Set a label' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l remove-label -d 'Take a label away' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l local -d 'On the hosts alone'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l bucket -d 'In the bucket alone'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand note" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l local -d 'On the hosts alone'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l bucket -d 'In the bucket alone'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand pin" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l local -d 'On the hosts alone'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l bucket -d 'In the bucket alone'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand unpin" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l keep -d 'Not the newest N of a family, in each place. A family is what differs in a version at the end only: app-v1.0, app-v1.1 and app-2026-01-31 are of one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l older-than -d 'What was last written longer ago: 12h, 30d, 8w' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l unused -d 'What no sandbox on any host of the settings stands on'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l leftovers -d 'What operations that broke off left behind more than a day ago: unfinished uploads, parts of pulls, temporary directories'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l dry-run -d 'Only tell what would go'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l yes -d 'Do not ask; without a terminal it is needed'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l local -d 'On the hosts alone; so it is with --host'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l bucket -d 'In the bucket alone; with --host there, too'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand prune" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand exists" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand info" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l listen -d 'Where to listen' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l token-file -d 'File with the token that callers show [env: SNAPDECK_API_TOKEN, the token itself]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l tls-cert -d 'Offer TLS with this certificate (PEM, with those that vouch for it)' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l tls-key -d 'The certificate\'s private key (PEM)' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l insecure-no-auth -d 'Serve everybody who reaches a loopback address, without a token'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand config" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l host -d 'The host to work on; needed where there are several. A pull, listings and doctor take more than one' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l config -d 'Settings file to read instead of the user\'s config.toml [env: SNAPDECK_CONFIG]' -r -F
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l uri -d 'libvirt URI: work on this host alone [env: LIBVIRT_URI]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l bucket-name -d 'The bucket\'s name [env: AWS_DEFAULT_BUCKET]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l prefix -d 'What the keys of all snapshots in the bucket begin with' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l endpoint -d 'URL of an S3-compatible store other than AWS [env: AWS_ENDPOINT_URL]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l region -d 'The bucket\'s region [env: AWS_REGION]' -r
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l read-only -d 'The console changes nothing: it shows, and refuses everything else'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l plain -d 'Lines of plain text, for screen readers and poor terminals: no borders, no graphs, ASCII signs'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -l json -d 'Print exactly one JSON document on stdout, also for an error'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -s v -l verbose -d 'Tell more on stderr; twice for still more'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand demo" -s h -l help -d 'Print help'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "sandboxes" -d 'List sandboxes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "snapshots" -d 'List the snapshots on the hosts'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "objects" -d 'List the snapshots in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "sandbox" -d 'Make, run and destroy sandboxes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "create" -d 'Cut a snapshot from a sandbox in any state and upload it; a running guest is paused for a moment'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "push" -d 'Upload the disk of a stopped or paused sandbox as a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "pull" -d 'Download a snapshot from the bucket to a host, or to several at once'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "verify" -d 'Read a snapshot again and check every block of it; exit code 1 where one is bad'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "remove" -d 'Remove a snapshot from a host, from the bucket, or both'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "note" -d 'Tell what is said of a snapshot, or say it: a note, labels'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "pin" -d 'Keep a snapshot from remove and prune, wherever it is'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "unpin" -d 'Take the pin away'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "prune" -d 'Remove what is old or not used, and what was left behind'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "exists" -d 'Is a snapshot on the host? Exit code 0 where it is, 3 where it is not'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "info" -d 'Show what is known of a snapshot, on the host and in the bucket'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "serve" -d 'Offer the HTTP API of one host, until SIGTERM or Ctrl-C'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "doctor" -d 'Examine the hosts and the bucket: what an operation will need, and the command that mends what is wrong'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "config" -d 'Print the settings in force and where each came from, secrets masked'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "demo" -d 'Open the console on a small world of its own: needs no setup, touches nothing else'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and not __fish_seen_subcommand_from sandboxes snapshots objects sandbox create push pull verify remove note pin unpin prune exists info serve doctor config demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "new" -d 'Make a sandbox on a snapshot'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "start" -d 'Start sandboxes, saved ones where they were'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "stop" -d 'Ask guests to shut down, by their agent or the power button, and wait until they have'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "pause" -d 'Pause running sandboxes: their memory stays in the host\'s RAM'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "resume" -d 'Let paused or sleeping sandboxes go on'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "save" -d 'Write the memory of sandboxes to the host\'s disk and end their processes'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "restore" -d 'Start saved sandboxes where they were'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "drop-saved" -d 'Forget the saved memory of sandboxes, as if their power had been cut'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "destroy" -d 'Remove sandboxes for good: disk, UEFI variables, saved state'
complete -c snapdeck -n "__fish_snapdeck_using_subcommand help; and __fish_seen_subcommand_from sandbox" -f -a "show" -d 'Show what is known of a sandbox, with the chain of its disk'
