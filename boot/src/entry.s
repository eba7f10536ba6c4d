# From the PVH entry point to `boot_main`: 32-bit protected mode without paging -> long mode.
#
# At entry (Xen's "x86/HVM direct boot ABI"): ebx = physical address of hvm_start_info, flat 4 GiB
# code and data segments, paging off, interrupts off. No stack, no usable GDT.

.section .note.Xen, "a", @note
    .balign 4
    .long 4                     # length of the name
    .long 8                     # length of the value: QEMU reads eight bytes of a 64-bit ELF file
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

.section .text.entry, "ax", @progbits
.code32
.global pvh_entry
pvh_entry:
    cld
    cli
    mov edi, offset bss_start   # nobody promises that .bss is zero
    mov ecx, offset bss_end
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd
    mov esp, offset stack_top
    mov esi, ebx                # cpuid below clobbers ebx

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb 1f
    mov eax, 0x80000001
    cpuid
    and edx, (1 << 29) | (1 << 20)
    cmp edx, (1 << 29) | (1 << 20)
    je 2f
1:  mov esi, offset no_long_mode
    mov dx, 0x3f8
3:  lodsb
    test al, al
    jz 4f
    out dx, al
    jmp 3b
4:  mov eax, {exit_code}
    mov dx, {exit_port}
    out dx, eax
5:  hlt
    jmp 5b

    # One identity mapping of the first 4 GiB by pages of 2 MiB. `paging` narrows its rights later.
2:  mov edi, offset page_directories
    mov eax, 0x83               # present, writable, page of 2 MiB
6:  mov [edi], eax
    add edi, 8
    add eax, 0x200000
    jnc 6b
    mov edi, offset level_3_table
    mov eax, offset page_directories + 0x3
    mov ecx, 4
7:  mov [edi], eax
    add edi, 8
    add eax, 4096
    loop 7b
    mov eax, offset level_3_table + 0x3
    mov edi, offset level_4_table
    mov [edi], eax

    mov eax, cr4
    or eax, 1 << 5              # PAE
    mov cr4, eax
    mov eax, offset level_4_table
    mov cr3, eax
    mov ecx, 0xc0000080         # EFER
    rdmsr
    or eax, (1 << 8) | (1 << 11)    # LME, NXE
    wrmsr
    mov eax, 0x80010033         # PG, WP, NE, ET, MP, PE
    mov cr0, eax
    lgdt [gdt_pointer]
    # A far jump; written as bytes because assemblers disagree about its Intel syntax.
    .byte 0xea
    .long long_mode
    .word 0x08

.code64
long_mode:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov rsp, offset stack_top
    xor ebp, ebp
    mov edi, esi                # boot_main(start_info), upper half cleared
    call boot_main
    ud2

# An exception's way to `boot_exception`: one stub of 16 bytes for each of the CPU's 32 vectors.
.balign 16
.global exception_stubs
exception_stubs:
    .set vector, 0
    .rept 32
    .balign 16
    # Of vectors 8, 10 to 14, 17, 21, 29 and 30 the CPU pushes an error code.
    .if ((0x60227d00 >> vector) & 1) == 0
    push 0
    .endif
    push vector
    jmp exception
    .set vector, vector + 1
    .endr
exception:
    cld
    mov rdi, rsp
    and rsp, -16
    call boot_exception
    ud2

.section .rodata.entry, "a", @progbits
no_long_mode:
    .asciz "umbra-boot: this CPU has no 64-bit mode with NX; start QEMU with -cpu max\r\n"
    .balign 8
gdt:
    .quad 0
    .quad 0x00209b0000000000    # 0x08: 64-bit code, already accessed: this page becomes read-only
    .quad 0x0000930000000000    # 0x10: data, already accessed
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt

.section .bss.tables, "aw", @nobits
    .balign 4096
level_4_table:    .skip 4096
level_3_table:    .skip 4096
.global page_directories
page_directories: .skip 4 * 4096
.global first_page_table
first_page_table: .skip 4096
