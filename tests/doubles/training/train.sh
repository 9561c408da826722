#!/bin/sh
# A double of files/images/training/train.py: it has the arguments, exit statuses and files of the
# real one, counts instead of training, and takes ten seconds.
job=$(cat "$2/job.json") || exit 1
case $job in *'"seed": 13'*)
    echo "the model has no module 'q_pro'; it has: q_proj, v_proj" >&2
    exit 1
    ;;
esac
if [ "$1" = check ]; then
    memory=1000000
    case $job in *'"seed": 14'*) memory=9000000000000000 ;; esac
    echo '{"parameters": 1000, "trainable": 10, "examples": 9, "held_back": 1, "tokens": 90,' \
        "\"steps\": 50, \"memory_bytes\": $memory, \"disk_bytes\": 1000, \"versions\": {}}"
    exit
fi
[ ! -e "$3/result.json" ] || exit 0
case $job in *'"seed": 15'*)
    echo "Traceback (most recent call last):" >&2
    echo "RuntimeError: CUDA error: out of memory" >&2
    exit 1
    ;;
esac
trap 'exit 75' TERM
step=0
checkpoint=$3/checkpoints/checkpoint-1
[ ! -e "$checkpoint/complete" ] || step=$(cat "$checkpoint/complete")
mkdir -p "$checkpoint"
while [ "$step" -lt 50 ]; do
    step=$((step + 1))
    echo "{\"step\": $step, \"steps\": 50, \"epoch\": 1.0, \"loss\": 0.$((100 - step))," \
        "\"held_back_loss\": null, \"seconds\": $step}" >>"$3/progress.jsonl"
    echo "$step" >"$checkpoint/complete"
    sleep 0.2 &
    wait $!
done
mkdir -p "$3/adapter"
echo '{"peft_type": "LORA", "r": 16}' >"$3/adapter/adapter_config.json"
echo weights >"$3/adapter/adapter_model.safetensors"
echo '{"before": 2.0, "after": 1.0, "first_loss": 0.99, "last_loss": 0.5, "steps": 50}' >"$3/result.json"
