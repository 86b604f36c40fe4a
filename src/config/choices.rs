//! Settings that are one word of a few.
use afterimage_learn::choices;

choices! {
    /// The program that decodes videos and network cameras.
    pub enum Decoder {
        /// ffmpeg where it is installed, else gst-launch-1.0.
        Auto = "auto",
        /// ffmpeg.
        Ffmpeg = "ffmpeg",
        /// GStreamer.
        Gstreamer = "gst-launch-1.0",
    }
}

choices! {
    /// The pixel format that a camera is asked for.
    pub enum CameraPixels {
        /// What costs least to decode.
        Auto = "auto",
        /// RGB, 3 bytes a pixel.
        Rgb = "rgb",
        /// BGR, 3 bytes a pixel.
        Bgr = "bgr",
        /// YUV 4:2:0, two planes.
        Nv12 = "nv12",
        /// YUV 4:2:2, packed.
        Yuyv = "yuyv",
        /// JPEG pictures.
        Mjpeg = "mjpeg",
        /// Brightness alone.
        Grey = "grey",
    }
}

choices! {
    /// How exported rows lie in files.
    pub enum Format {
        /// NumPy, with records as JSON lines.
        Npy = "npy",
        /// Parquet, with the records in it.
        Parquet = "parquet",
        /// Safetensors, with records as JSON lines.
        Safetensors = "safetensors",
    }
}

choices! {
    /// The type of exported numbers.
    pub enum Dtype {
        /// 32 bits.
        F32 = "f32",
        /// 16 bits.
        F16 = "f16",
    }
}

choices! {
    /// How boxes become latents.
    pub enum BoxPooling {
        /// RoIAlign where latents are grids, else each box by itself.
        Auto = "auto",
        /// Each box is cut out and encoded by itself.
        Crop = "crop",
        /// RoIAlign over the grid of the frame.
        Roi = "roi",
    }
}

choices! {
    /// What an MQTT message holds.
    pub enum Payload {
        /// The layout of the local socket.
        Binary = "binary",
        /// JSON.
        Json = "json",
    }
}

choices! {
    /// An ONNX Runtime execution provider.
    pub enum Provider {
        /// NVIDIA TensorRT.
        TensorRt = "tensorrt",
        /// NVIDIA CUDA.
        Cuda = "cuda",
        /// Intel OpenVINO.
        OpenVino = "openvino",
        /// XNNPACK.
        Xnnpack = "xnnpack",
        /// Arm Compute Library.
        Acl = "acl",
        /// ONNX Runtime's own kernels.
        Cpu = "cpu",
    }
}

choices! {
    /// The arithmetic of TensorRT.
    pub enum Precision {
        /// 32-bit floats.
        Fp32 = "fp32",
        /// 16-bit floats where they are faster.
        Fp16 = "fp16",
        /// 8-bit integers, for models with QDQ nodes.
        Int8 = "int8",
    }
}

choices! {
    /// How the arena of CUDA grows.
    pub enum ArenaExtend {
        /// By what is needed.
        SameAsRequested = "same-as-requested",
        /// By powers of two: fewer, larger steps.
        NextPowerOfTwo = "next-power-of-two",
    }
}

choices! {
    /// How algorithms of convolutions are chosen.
    pub enum ConvSearch {
        /// By rules.
        Heuristic = "heuristic",
        /// The one with the least memory.
        Default = "default",
        /// The fastest of all that are tried.
        Exhaustive = "exhaustive",
    }
}
