# shellcheck shell=bash
# Where things lie, and the parts that are slow to make: Slurm and its company, Apptainer, the base image.
# Sourced by `cluster` and `build-image`. Nothing is installed on the machine: Debian packages are downloaded by apt with
# a configuration of its own, unpacked below the cache folder, and their programs told where their libraries are now.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/aifbench/cluster
STATE=${AIFBENCH_CLUSTER_STATE:-/tmp/aifbench-cluster}

TOOLS=$CACHE/tools                 # Slurm, munge, MariaDB, squashfs, debootstrap: from this machine's own suite
APPTAINER=$CACHE/apptainer         # Apptainer with the C library that it needs: from the unstable suite
BIN=$CACHE/bin                     # links to what a user calls; goes into PATH
BASE_IMAGE=$CACHE/base.sif
LOGS=$CACHE/log
MIRROR=$CACHE/apt/mirror           # a file with its address

TOOL_PACKAGES=(slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core
               debootstrap squashfs-tools squashfuse patchelf)
BASE_SUITE=bookworm
BASE_PACKAGES=python3,python3-venv,ca-certificates,libstdc++6,libgomp1

# A part is made again when its recipe here has another number than its stamp.
TOOLS_RECIPE=4 APPTAINER_RECIPE=1 BASE_RECIPE=1

# zstd: seven times faster to pack than gzip, as small, and squashfuse reads it.
SQUASH_ARGS='-comp zstd -Xcompression-level 6'

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Runs a command with its output in a log; if it fails, shows the end of the log and says where it is.
logged() {
    local log=$LOGS/$1.log; shift
    mkdir -p "$LOGS"
    "$@" >"$log" 2>&1 || { tail -n 15 "$log" >&2; die "failed: $(basename "$1"), see $log"; }
}

check_paths() {
    local path
    for path in "$CACHE" "$STATE"; do      # these end up in configuration files that know no quoting
        [[ $path =~ ^/[A-Za-z0-9/._+@-]+$ ]] || die "not a plain absolute path: $path"
    done
    [ "${#STATE}" -le 60 ] || die "AIFBENCH_CLUSTER_STATE is too long for the sockets below it: $STATE"
}

# One lock for all that changes the cache or the cluster. Daemons must not inherit it (9>&-).
take_lock() {
    mkdir -p "$CACHE"
    exec 9>"$CACHE/lock"
    flock --nonblock 9 || { say "waiting for another run of tests/slurm"; flock 9; }
}

is_made() { [ "$(cat "$CACHE/$1.stamp" 2>/dev/null)" = "$2" ]; }       # name, recipe
set_made() { printf '%s\n' "$2" >"$CACHE/$1.stamp"; }

# ---- Debian packages, without installing any -------------------------------------------------------------------------

# Writes CACHE/apt/NAME.conf: this machine's way to its mirrors, but package lists, downloads and status of our own.
apt_configure() {      # name, file with the sources (none: the machine's own)
    local dir=$CACHE/apt/$1 sources=${2:-}
    mkdir -p "$dir"/{lists,archives}/partial "$dir/empty"
    {
        apt-config dump Acquire
        printf '%s "%s";\n' \
            Dir::Etc::parts "$dir/empty" Dir::Etc::main "/dev/null" \
            Dir::State::lists "$dir/lists" Dir::State::status "$dir/status" Dir::State::extended_states "$dir/extended" \
            Dir::Cache "$dir" Dir::Cache::archives "$dir/archives" \
            Dir::Log "$dir" \
            APT::Sandbox::User root Acquire::Languages none APT::Get::List-Cleanup false \
            Acquire::IndexTargets::deb::DEP-11::DefaultEnabled false
        if [ -n "$sources" ]; then
            printf '%s "%s";\n' Dir::Etc::sourcelist "$sources" Dir::Etc::sourceparts "$dir/empty"
        fi
    } >"$dir.conf"
}

# Removes the package lists (200 MB), keeps the downloads.
apt_forget() { rm -rf "$CACHE/apt/$1"/lists "$CACHE/apt/$1"/*.bin; }

# The mirror of Debian that this machine uses, from its package lists; kept for the parts that are made later.
find_mirror() {
    local codename mirror
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    # shellcheck disable=SC2016    # apt fills these in
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Identifier: Packages' |
        awk -v codename="$codename" '$1 == "Debian" && $2 == codename { print $3; exit }')
    [ -n "$mirror" ] || die "no mirror of Debian $codename in this machine's apt configuration"
    printf '%s\n' "$mirror" >"$MIRROR"
}

unpack() {             # folder with packages, folder to fill
    local package
    for package in "$1"/*.deb; do dpkg-deb -x "$package" "$2"; done
}

is_elf() { [ "$(head -c 4 "$1" | tail -c 3)" = ELF ]; }

# ---- Slurm and its company -------------------------------------------------------------------------------------------

make_tools() {
    is_made tools $TOOLS_RECIPE && return
    say "downloading Slurm, munge, MariaDB and what builds images"
    local apt=$CACHE/apt/tools part=$TOOLS.part
    apt_configure tools
    # Our own list of what is installed: the machine's without the packages that we want, so that they are downloaded even
    # where they are installed, and their libraries only where the machine lacks them. Without dependencies, so that
    # nothing in it can be broken.
    awk -v wanted=" ${TOOL_PACKAGES[*]} " '
        /^Package: / { skip = $2 ~ /^slurm-wlm/ || index(wanted, " " $2 " ") }
        !skip && /^($|(Package|Status|Version|Architecture|Multi-Arch|Provides): )/' /var/lib/dpkg/status >"$apt/status"
    export APT_CONFIG=$apt.conf
    logged apt-update apt-get -q update
    find_mirror
    rm -f "$apt"/archives/*.deb
    logged apt-download apt-get -q -y --no-install-recommends --download-only install "${TOOL_PACKAGES[@]}"
    unset APT_CONFIG
    apt_forget tools

    rm -rf "$part" "$TOOLS"
    mkdir -p "$part"
    unpack "$apt/archives" "$part"
    logged patch-tools patch_tools "$part"
    mv "$part" "$TOOLS"
    set_made tools $TOOLS_RECIPE
}

# Every program and library below PART looks for its libraries where they will lie.
patch_tools() {
    local part=$1 triplet patchelf file path
    triplet=$(basename "$(dirname "$part"/usr/lib/*/slurm-wlm)")
    path=$TOOLS/usr/lib/$triplet:$TOOLS/lib/$triplet:$TOOLS/usr/lib/$triplet/slurm-wlm
    patchelf=$part/patchelf            # a copy: a running program cannot be written to
    cp "$part/usr/bin/patchelf" "$patchelf"
    while IFS= read -r -d '' file; do
        if is_elf "$file"; then "$patchelf" --force-rpath --set-rpath "$path" "$file"; fi
    done < <(find "$part/usr/bin" "$part/usr/sbin" "$part/usr/lib/$triplet" "$part/lib" -type f -size +1k -print0)
    rm "$patchelf"
    rm -f "$part"/usr/lib/*/slurm-wlm/mpi_pmix*    # lacks its library, and each daemon would say so twice
    # A daemon of Slurm must be called by its own name, or it does not know what it is and crashes.
    for file in "$part"/usr/sbin/*-wlm; do ln -s "${file##*/}" "${file%-wlm}"; done
}

# ---- Apptainer -------------------------------------------------------------------------------------------------------

make_apptainer() {
    is_made apptainer $APPTAINER_RECIPE && return
    say "downloading Apptainer"
    local apt=$CACHE/apt/apptainer part=$APPTAINER.part keyring=/usr/share/keyrings/debian-archive-keyring.gpg libraries
    mkdir -p "$apt"
    printf 'deb %s %s sid main\n' "$([ -e $keyring ] && echo "[signed-by=$keyring]")" "$(cat "$MIRROR")" >"$apt/sources.list"
    apt_configure apptainer "$apt/sources.list"
    : >"$apt/status"                   # of this suite nothing is installed
    export APT_CONFIG=$apt.conf
    logged apt-update-sid apt-get -q update
    # Its libraries, but not the programs that it calls: those come from TOOLS.
    libraries=$(apt-cache show --no-all-versions apptainer | sed -n 's/^Depends: //p' | tr ',' '\n' | sed 's/(.*//' | awk '$1 ~ /^lib/ { print $1 }')
    rm -f "$apt"/archives/*.deb
    # shellcheck disable=SC2086        # one word per library
    (cd "$apt/archives" && logged apt-download-sid apt-get -q download apptainer $libraries)
    unset APT_CONFIG
    apt_forget apptainer

    rm -rf "$part" "$APPTAINER"
    mkdir -p "$part"
    unpack "$apt/archives" "$part"
    logged patch-apptainer patch_apptainer "$part"
    mv "$part" "$APPTAINER"
    logged apptainer-version "$APPTAINER/usr/bin/apptainer" --version
    set_made apptainer $APPTAINER_RECIPE
}

# Its two programs take the dynamic linker and the libraries that came with them; the machine's may be too old.
patch_apptainer() {
    local part=$1 starter libraries linker file
    starter=$(echo "$part"/usr/lib/*/apptainer/bin/starter)
    libraries=$(dirname "$(dirname "$(dirname "$starter")")")
    linker=$(find "$libraries" -maxdepth 1 -name 'ld-linux*' | head -n 1)
    for file in "$part/usr/bin/apptainer" "$starter"; do
        "$TOOLS/usr/bin/patchelf" --set-interpreter "${linker/"$part"/"$APPTAINER"}" "$file"
        "$TOOLS/usr/bin/patchelf" --force-rpath --set-rpath "${libraries/"$part"/"$APPTAINER"}" "$file"
    done
    # It finds its files relative to itself, in either of these places.
    mkdir -p "$part/usr/etc" "$part"/usr/{,lib/}var/lib/apptainer/mnt/session
    ln -s ../../etc/apptainer "$part/usr/etc/apptainer"
    ln -s ../../etc "$part/usr/lib/etc"
}

# What a user calls, in one folder: programs that only this script needs stay out of PATH.
make_links() {
    local program
    mkdir -p "$BIN"
    for program in "$TOOLS"/usr/bin/{s*,mksquashfs,unsquashfs} "$APPTAINER/usr/bin/apptainer"; do
        if [ ! "$BIN/${program##*/}" -ef "$program" ]; then ln -sfn "$program" "$BIN/${program##*/}"; fi
    done
}

# ---- The base image --------------------------------------------------------------------------------------------------

make_base() {
    is_made base $BASE_RECIPE && [ -e "$BASE_IMAGE" ] && return
    [ "$(id -u)" = 0 ] || die "the base image is made by root"
    say "making the base image (a minute)"
    local root=$CACHE/base.rootfs http_proxy=''
    rm -rf "$root"
    eval "$(apt-config shell http_proxy Acquire::http::Proxy)"     # debootstrap downloads with wget
    # In a mount namespace of its own: whatever happens, nothing stays mounted below the folder that is removed later.
    PATH=$TOOLS/usr/sbin:$TOOLS/usr/bin:$PATH DEBOOTSTRAP_DIR=$TOOLS/usr/share/debootstrap http_proxy=${http_proxy:-} \
        logged debootstrap nice unshare --mount --fork --kill-child \
        debootstrap --variant=minbase --include="$BASE_PACKAGES" "$BASE_SUITE" "$root" "$(cat "$MIRROR")"
    rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/var/log/*.log \
        "$root"/usr/share/{doc,man,info,locale}/*
    # build-image binds the machine's pip settings over these: while an image is built nothing can be bound where no file is.
    mkdir -p "$root/root/.pip" "$root/root/.config/pip"
    touch "$root/etc/pip.conf" "$root/root/.pip/pip.conf" "$root/root/.config/pip/pip.conf"
    # One owner for all files: in the user namespace of a later build no other one exists.
    apptainer_environment
    logged base-image nice apptainer build --force --mksquashfs-args "-all-root $SQUASH_ARGS" "$BASE_IMAGE.part" "$root"
    mv "$BASE_IMAGE.part" "$BASE_IMAGE"
    rm -rf "$root"
    set_made base $BASE_RECIPE
}

make_images() { make_tools; make_apptainer; make_links; make_base; }
images_are_made() { is_made tools $TOOLS_RECIPE && is_made apptainer $APPTAINER_RECIPE && is_made base $BASE_RECIPE && [ -e "$BASE_IMAGE" ]; }

apptainer_environment() {
    export PATH="$BIN:$PATH"
    export APPTAINER_CACHEDIR=$CACHE/apptainer-home/cache APPTAINER_TMPDIR=$CACHE/apptainer-home/tmp
    export APPTAINER_CONFIGDIR=$CACHE/apptainer-home/config
    mkdir -p "$APPTAINER_CACHEDIR" "$APPTAINER_TMPDIR" "$APPTAINER_CONFIGDIR"
}
