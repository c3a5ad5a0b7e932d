# The CUDA toolkit, cuBLAS and cuDNN 9, and how a library with .cu files is compiled by nvcc.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90)
endif()
set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# Wheels of pip ship only libcudnn.so.9; CMake has no find module for it.
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} $ENV{CUDNN_PATH} PATH_SUFFIXES include REQUIRED)
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDAToolkit_LIBRARY_DIR} $ENV{CUDNN_PATH}
  PATH_SUFFIXES lib lib64 REQUIRED)
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

function(lanas_cuda_library name)
  # CMake 3.25 knows no C++20 for CUDA. Asked for 17, nvcc's default, it passes no flag, and the right one stands here.
  # --expt-relaxed-constexpr: kernels call constexpr members of views.
  set_target_properties(${name} PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED OFF CUDA_EXTENSIONS ON)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
    -std=c++20 --expt-relaxed-constexpr -Werror=all-warnings
    -Xcompiler=-fopenmp,-Wall,-Wextra,-Wno-psabi,-Wno-unknown-pragmas>)
  target_include_directories(${name} PRIVATE ${CUDNN_INCLUDE_DIR})
  target_link_libraries(${name} PRIVATE CUDA::cudart CUDA::cublas ${CUDNN_LIBRARY})
endfunction()
