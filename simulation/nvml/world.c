/* Reads the world file and keeps its two companions: the counts of faults used, and the open sessions.
 *
 * The file is written whole and renamed into place, so that what is read here is never half of it.
 */
#define _GNU_SOURCE
#include "world.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path(void) { return getenv("DS01_SIM_NVML"); }

static void companion(char *target, size_t size, const char *suffix) { snprintf(target, size, "%s.%s", path(), suffix); }

static bool parse(struct world *world, char *line) {
    struct gpu *gpu = world->gpus ? &world->gpu[world->gpus - 1] : NULL;
    char effect[16], kind[4];
    int read = 0;
    if (strncmp(line, "driver ", 7) == 0) return sscanf(line, "driver %63s %d", world->driver, &world->cuda) == 2;
    if (strncmp(line, "gpu ", 4) == 0) {
        if (world->gpus == MAX_GPUS) return false;
        gpu = &world->gpu[world->gpus++];
        memset(gpu, 0, sizeof *gpu);
        int fields = sscanf(line, "gpu %95s %d %d %d %d %d %llu %llu %d %d %d %lld %d %d %d %n", gpu->uuid, &gpu->minor,
                            &gpu->pci_bus, &gpu->mig_mode, &gpu->mig_pending, &gpu->max_migs, &gpu->memory, &gpu->used,
                            &gpu->utilization, &gpu->temperature, &gpu->persistence, &gpu->ecc_errors, &gpu->remapped,
                            &gpu->remap_pending, &gpu->remap_failed, &read);
        snprintf(gpu->name, sizeof gpu->name, "%s", line + read);
        return fields == 15 && gpu->name[0];
    }
    if (strncmp(line, "mig ", 4) == 0) {
        if (!gpu || gpu->migs == MAX_MIGS) return false;
        struct mig *mig = &gpu->mig[gpu->migs++];
        return sscanf(line, "mig %95s %d %d %d %llu %31s", mig->uuid, &mig->index, &mig->gi, &mig->ci, &mig->memory,
                      mig->profile) == 6;
    }
    if (strncmp(line, "process ", 8) == 0) {
        if (!gpu || world->processes == MAX_PROCESSES) return false;
        struct process *process = &world->process[world->processes++];
        process->gpu = world->gpus - 1;
        process->mig = gpu->migs - 1;
        if (sscanf(line, "process %d %llu %3s", &process->pid, &process->memory, kind) != 3) return false;
        process->graphics = kind[0] == 'G';
        return true;
    }
    if (strncmp(line, "fault ", 6) == 0) {
        if (world->faults == MAX_FAULTS) return false;
        struct fault *fault = &world->fault[world->faults++];
        if (sscanf(line, "fault %63s %d %d %15s %u %u %39s", fault->function, &fault->gpu, &fault->mig, effect,
                   &fault->value, &fault->first, fault->id) != 7)
            return false;
        fault->effect = strcmp(effect, "hang") == 0    ? EFFECT_HANG
                        : strcmp(effect, "empty") == 0 ? EFFECT_EMPTY
                        : strcmp(effect, "delay") == 0 ? EFFECT_DELAY
                                                       : EFFECT_CODE;
        return true;
    }
    return line[0] == '\0' || line[0] == '#';
}

int world_read(struct world *world) {
    static struct stat seen;
    static bool valid;
    static struct world fresh;
    struct stat status;
    if (!path()) return DRIVER_NOT_LOADED;
    FILE *file = fopen(path(), "re");
    if (!file) return UNKNOWN;
    if (fstat(fileno(file), &status) != 0) {
        fclose(file);
        return UNKNOWN;
    }
    if (valid && status.st_ino == seen.st_ino && status.st_size == seen.st_size &&
        status.st_mtim.tv_sec == seen.st_mtim.tv_sec && status.st_mtim.tv_nsec == seen.st_mtim.tv_nsec) {
        fclose(file);
        return SUCCESS;
    }
    char line[512];
    memset(&fresh, 0, sizeof fresh);
    valid = true;
    while (valid && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        valid = parse(&fresh, line);
        if (!valid) fprintf(stderr, "simulated NVML: cannot read this line of %s: %s\n", path(), line);
    }
    fclose(file);
    if (!valid) return UNKNOWN;
    seen = status;
    *world = fresh;
    return SUCCESS;
}

struct gpu *world_gpu(struct world *world, const char *uuid) {
    for (int g = 0; g < world->gpus; g++)
        if (strcmp(world->gpu[g].uuid, uuid) == 0) return &world->gpu[g];
    return NULL;
}

struct mig *world_mig(struct gpu *gpu, const char *uuid) {
    for (int m = 0; m < gpu->migs; m++)
        if (strcmp(gpu->mig[m].uuid, uuid) == 0) return &gpu->mig[m];
    return NULL;
}

/* The how many-th use this is, over all processes: every use appends a byte to the fault's own file. */
static unsigned uses(const struct fault *fault) {
    char name[4200];
    char suffix[64];
    snprintf(suffix, sizeof suffix, "fault-%s", fault->id);
    companion(name, sizeof name, suffix);
    int file = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) return 1;
    off_t end = write(file, ".", 1) == 1 ? lseek(file, 0, SEEK_CUR) : 1;
    close(file);
    return (unsigned)end;
}

bool world_fault_meets(struct fault *fault, const char *function, int gpu, int mig) {
    bool everywhere = strcmp(fault->function, "*") == 0;
    if (!everywhere && strcmp(fault->function, function) != 0) return false;
    if (fault->gpu >= 0 && fault->gpu != gpu) return false;
    if (fault->mig >= 0 && fault->mig != mig) return false;
    return fault->first == 0 || uses(fault) <= fault->first;
}

/* When a process started, in clock ticks; 0: it is gone. Together with the pid it names a process for good. */
static unsigned long long start_of(long pid) {
    char name[64], text[1024];
    snprintf(name, sizeof name, "/proc/%ld/stat", pid);
    FILE *file = fopen(name, "re");
    if (!file) return 0;
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = '\0';
    char *rest = strrchr(text, ')');
    unsigned long long start = 0;
    char state = 'Z';
    if (!rest || sscanf(rest + 2, "%c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state,
                        &start) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : start;
}

void world_session(bool open_it) {
    enum { MOST = 256 };
    static long pid[MOST];
    static unsigned long long start[MOST];
    char name[4200];
    unsigned long opened = 0, peak = 0, count = 0;
    companion(name, sizeof name, "sessions");
    int descriptor = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0) return;
    FILE *file = fdopen(descriptor, "r+");
    if (!file) {
        close(descriptor);
        return;
    }
    flock(descriptor, LOCK_EX);
    long me = (long)getpid(), other;
    unsigned long long since;
    if (fscanf(file, "opened %lu peak %lu\n", &opened, &peak) == 2)
        while (count < MOST - 1 && fscanf(file, "%ld %llu\n", &other, &since) == 2)
            if (other != me && start_of(other) == since) pid[count] = other, start[count++] = since;
    if (open_it) {
        pid[count] = me, start[count++] = start_of(me);
        opened++;
        if (count > peak) peak = count;
    }
    rewind(file);
    if (ftruncate(descriptor, 0) == 0) {
        fprintf(file, "opened %lu peak %lu\n", opened, peak);
        for (unsigned long i = 0; i < count; i++) fprintf(file, "%ld %llu\n", pid[i], start[i]);
    }
    fclose(file);
}
